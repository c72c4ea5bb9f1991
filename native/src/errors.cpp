#include "sabot/errors.hpp"

#include <system_error>

namespace sabot {

std::string system_message(const std::string& what, int error_number) {
  return what + ": " + std::generic_category().message(error_number);
}

}  // namespace sabot
