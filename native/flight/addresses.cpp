#include "addresses.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>

namespace sabot {

std::string bare_host(const std::string& host) {
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  return bracketed ? host.substr(1, host.size() - 2) : host;
}

std::string uri_host(const std::string& host) {
  const std::string bare = bare_host(host);
  return bare.find(':') == std::string::npos ? bare : "[" + bare + "]";
}

bool is_loopback(const std::string& host) {
  const std::string bare = bare_host(host);
  if (bare.find('\0') != std::string::npos) return false;
  if (bare == "localhost") return true;
  in_addr four{};
  if (inet_pton(AF_INET, bare.c_str(), &four) == 1) return (ntohl(four.s_addr) >> 24) == 127;
  in6_addr six{};
  return inet_pton(AF_INET6, bare.c_str(), &six) == 1 && IN6_IS_ADDR_LOOPBACK(&six);
}

}  // namespace sabot
