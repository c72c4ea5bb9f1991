// Tickets and their seal.

#include "sabot/ticket.hpp"
#include "support.hpp"

using namespace sabot;

namespace {

const std::string kKey(32, 'k');

std::string hex(const Digest& digest) {
  std::string text;
  char byte[3];
  for (const uint8_t value : digest) {
    std::snprintf(byte, sizeof byte, "%02x", value);
    text += byte;
  }
  return text;
}

}  // namespace

TEST(sha256_gives_the_published_digests) {
  CHECK(hex(sha256("")) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex(sha256(std::string(1'000'000, 'a'))) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(hmac_gives_the_published_digests) {
  CHECK(hex(hmac_sha256("Jefe", "what do ya want for nothing?")) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  CHECK(hex(hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First")) ==
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(a_ticket_opens_with_its_key_only) {
  const Ticket ticket{"query-1", "edge_2", {{0, 0}, {3, 1}}, 2, 5};
  const std::string sealed = ticket.seal(kKey);
  const Ticket opened = Ticket::open(sealed, kKey);
  CHECK(opened.query_id == "query-1" && opened.edge_id == "edge_2" && opened.outputs == ticket.outputs);
  CHECK(opened.first_partition == 2 && opened.last_partition == 5);
  CHECK_THROWS(kTicket, Ticket::open(sealed, std::string(32, 'a')));
  for (size_t at = 0; at < sealed.size(); ++at) {
    std::string damaged = sealed;
    damaged[at] = static_cast<char>(damaged[at] ^ 1);
    CHECK_THROWS(kTicket, Ticket::open(damaged, kKey));
    CHECK_THROWS(kTicket, Ticket::open(sealed.substr(0, at), kKey));
  }
}

TEST(ids_that_could_be_paths_are_refused) {
  for (const char* id : {"..", "a/b", "", " ", "a.b", "%2e", "\xc3\xa4"}) {
    CHECK_THROWS(kTicket, static_cast<void>(Ticket{id, "edge", {}, 0, 1}.seal(kKey)));
    CHECK_THROWS(kTicket, static_cast<void>(Ticket{"query", id, {}, 0, 1}.seal(kKey)));
  }
}

TEST(a_short_key_seals_and_opens_nothing) {
  const Ticket ticket{"query", "edge", {}, 0, 1};
  const std::string sealed = ticket.seal(kKey);
  for (const size_t bytes : {0, 1, 31}) {
    const std::string key(bytes, 'k');
    CHECK_THROWS(kInvalidArgument, static_cast<void>(ticket.seal(key)));
    CHECK_THROWS(kInvalidArgument, Ticket::open(sealed, key));
  }
}
