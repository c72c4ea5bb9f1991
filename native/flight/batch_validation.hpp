// What comes from another process is data, not fact: it is checked before anybody follows it.
#pragma once

#include <arrow/record_batch.h>
#include <arrow/status.h>

namespace sabot {

// Names of columns, of fields and of time zones are text.
arrow::Status validate_schema(const arrow::Schema& schema);

// Gives what arrow::RecordBatch::ValidateFull() gives, in one pass over offsets and text for the common types.
arrow::Status validate_batch(const arrow::RecordBatch& batch);

}  // namespace sabot
