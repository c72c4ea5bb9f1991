// What the Cython module needs beyond plain calls: the one table that turns native errors into Python exceptions.
#pragma once

#include <Python.h>

#include <map>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "sabot/live_channels.hpp"
#include "sabot/manifest.hpp"
#include "sabot/partition_stream.hpp"
#include "sabot/shuffle_buffer.hpp"
#include "sabot/ticket.hpp"

namespace sabot {

// Set once while the module is imported; the module keeps the types alive.
inline std::map<std::string, PyObject*>& exception_types() {
  static std::map<std::string, PyObject*> types;
  return types;
}

inline void set_exception_types(PyObject* types) {
  PyObject* name = nullptr;
  PyObject* type = nullptr;
  for (Py_ssize_t at = 0; PyDict_Next(types, &at, &name, &type) != 0;) {
    Py_INCREF(type);
    exception_types()[PyUnicode_AsUTF8(name)] = type;
  }
}

inline const char* exception_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInternal: case ErrorCode::kInvalidArgument: return "NativeError";
    case ErrorCode::kCancelled: return "Cancelled";
    case ErrorCode::kDeadline: return "DeadlineExceeded";
    case ErrorCode::kQuota: return "SpillQuotaExceeded";
    case ErrorCode::kCorrupt: return "CorruptSegment";
    case ErrorCode::kLost: return "SegmentLost";
    case ErrorCode::kTicket: return "InvalidTicket";
    case ErrorCode::kUnsupported: return "UnsupportedType";
    case ErrorCode::kStream: return "StreamError";
  }
  return "NativeError";
}

// Called by Cython inside a catch block, with the GIL.
inline void raise_python_error() {
  try {
    throw;
  } catch (const Error& error) {
    // The text may come from a foreign stream: it need not be UTF-8.
    const std::string text = error.what();
    PyObject* message = PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
    PyErr_SetObject(exception_types()[exception_name(error.code())], message);
    Py_XDECREF(message);
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(exception_types()["NativeError"], error.what());
  }
}

inline std::shared_ptr<const Manifest> manifest_from_bytes(const char* data, size_t bytes) {
  return std::make_shared<const Manifest>(Manifest::from_bytes({data, bytes}));
}

inline void add_output(std::vector<OutputSpec>& outputs, const std::string& query_id, const std::string& edge_id, uint32_t task,
                       uint32_t attempt, const Scheme& scheme, bool all_columns, const std::vector<std::string>& columns) {
  outputs.push_back({{query_id, edge_id, task, attempt}, scheme, std::nullopt});
  if (!all_columns) outputs.back().columns = columns;
}

// A ticket for outputs of one edge.
inline std::string seal_ticket(const std::vector<std::shared_ptr<const Manifest>>& manifests, uint32_t first, uint32_t last,
                               const std::string& key) {
  if (manifests.empty()) throw Error(ErrorCode::kInvalidArgument, "there is no manifest to read");
  const OutputName& name = manifests.front()->name;
  Ticket ticket{name.query_id, name.edge_id, {}, first, last};
  for (const auto& manifest : manifests) {
    if (manifest->name.query_id != name.query_id || manifest->name.edge_id != name.edge_id) {
      throw Error(ErrorCode::kInvalidArgument, "a ticket is for outputs of one edge");
    }
    ticket.outputs.emplace_back(manifest->name.task, manifest->name.attempt);
  }
  return ticket.seal(key);
}

inline void rethrow_stream_error(ErrorSlot& slot) {
  if (const auto error = slot.get()) throw *error;
}

inline void add_key(std::vector<OutputKey>& keys, const std::string& query_id, const std::string& edge_id, uint32_t task, uint32_t attempt) {
  keys.emplace_back(query_id, edge_id, task, attempt);
}

}  // namespace sabot
