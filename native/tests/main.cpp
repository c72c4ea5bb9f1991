#include <cstring>

#include "harness.hpp"

// Runs every test, or those whose name contains the argument.
int main(int argc, char** argv) {
  int failed = 0;
  int run = 0;
  for (const auto& test : harness::cases()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    ++run;
    try {
      test.body();
    } catch (const std::exception& error) {
      ++failed;
      std::fprintf(stderr, "FAILED %s: %s\n", test.name, error.what());
    }
  }
  std::printf("%d tests, %d failed\n", run, failed);
  return failed == 0 && run > 0 ? 0 : 1;
}
