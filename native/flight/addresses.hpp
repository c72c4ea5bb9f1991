// Host names as they are given and as they stand in a URI.
#pragma once

#include <string>

namespace sabot {

// Without the brackets in which an IPv6 address may stand.
std::string bare_host(const std::string& host);
// With them, where it is an IPv6 address.
std::string uri_host(const std::string& host);
// Whether nothing but this machine can reach it: localhost, 127.0.0.0/8, ::1.
bool is_loopback(const std::string& host);

}  // namespace sabot
