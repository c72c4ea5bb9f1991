// Arrays of this process that somebody else made: their offsets, views, indexes and lengths are checked before they are followed.
#pragma once

#include "sabot/schema.hpp"

namespace sabot {

// Raises Error(kStream) where following the array would leave its buffers or its children. How large the buffers of values are,
// the C data interface does not say: that first and last offset lie inside is checked by whoever knows.
void check_array(const Field& field, const ArrowArray& array);

// Of every batch of a stream, which is read to its end.
void check_stream(ArrowArrayStream& stream);

}  // namespace sabot
