// The one table that turns native errors into Python exceptions.
#pragma once

#include <Python.h>

#include <map>
#include <new>
#include <string>

#include "sabot/errors.hpp"
#include "sabot/stream_guard.hpp"

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

inline void rethrow_stream_error(ErrorSlot& slot) {
  if (const auto error = slot.get()) throw *error;
}

}  // namespace sabot
