# distutils: language = c++
"""Declarations of the C++ core for _native.pyx."""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp cimport bool
from libcpp.memory cimport shared_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "sabot/arrow_abi.hpp" nogil:
    cdef struct ArrowSchema:
        void (*release)(ArrowSchema*)

    cdef struct ArrowArrayStream:
        void (*release)(ArrowArrayStream*)


cdef extern from "sabot/arrow_abi.hpp" namespace "sabot" nogil:
    cdef cppclass OwnedStream:
        OwnedStream()
        OwnedStream(ArrowArrayStream*)


cdef extern from "python_boundary.hpp" namespace "sabot" nogil:
    void raise_python_error()
    void set_exception_types(dict types)


cdef extern from "sabot/array_check.hpp" namespace "sabot" nogil:
    void check_array_stream "sabot::check_stream"(ArrowArrayStream&) except +raise_python_error


cdef extern from "sabot/watch.hpp" namespace "sabot" nogil:
    cdef cppclass CppCancelToken "sabot::CancelToken":
        CppCancelToken()
        void cancel()
        bool cancelled()

    cdef cppclass Watch:
        Watch()

        @staticmethod
        Watch after(shared_ptr[CppCancelToken], int64_t)


cdef extern from "<chrono>" namespace "std::chrono" nogil:
    cdef cppclass milliseconds:
        milliseconds(int64_t)


cdef extern from "sabot/heartbeat.hpp" namespace "sabot" nogil:
    cdef cppclass CppHeartbeat "sabot::Heartbeat":
        CppHeartbeat(int, milliseconds) except +raise_python_error
        uint64_t silent_ms()
        void stop()


cdef extern from "sabot/schema.hpp" namespace "sabot" nogil:
    cdef cppclass Field:
        pass

    void export_field(const Field&, ArrowSchema*) except +raise_python_error


cdef extern from "sabot/sketch.hpp" namespace "sabot" nogil:
    cdef cppclass HeavyHitter:
        uint64_t hash
        uint64_t count
        uint64_t error


cdef extern from "sabot/distinct_sketch.hpp" namespace "sabot" nogil:
    string sketch_bytes(const vector[uint64_t]&)
    uint64_t native_distinct_count "sabot::distinct_count"(const vector[string]&) except +raise_python_error


cdef extern from "sabot/partitioner.hpp" namespace "sabot" nogil:
    cdef cppclass CppScheme "sabot::Scheme":
        CppScheme()
        uint32_t partitions

        @staticmethod
        CppScheme single()
        @staticmethod
        CppScheme hash_column(string, uint32_t) except +raise_python_error
        @staticmethod
        CppScheme hash_columns(vector[string], uint32_t) except +raise_python_error
        @staticmethod
        CppScheme range(string, vector[string]) except +raise_python_error
        @staticmethod
        CppScheme sampled(string, uint32_t) except +raise_python_error
        @staticmethod
        CppScheme round_robin(uint32_t) except +raise_python_error


cdef extern from "sabot/manifest.hpp" namespace "sabot" nogil:
    cdef cppclass SegmentRef:
        pass

    cdef cppclass PartitionSegments:
        uint64_t rows
        uint64_t bytes
        vector[SegmentRef] segments

    cdef cppclass OutputName:
        string query_id
        string edge_id
        uint32_t task
        uint32_t attempt

    cdef cppclass CppManifest "sabot::Manifest":
        OutputName name
        string agent_id
        vector[PartitionSegments] partitions
        vector[HeavyHitter] heavy
        vector[uint64_t] least_hashes
        vector[string] sample
        uint64_t spilled_bytes
        uint64_t wait_ns
        uint64_t rows()
        uint64_t bytes()
        uint64_t batches()
        string to_bytes() except +raise_python_error


ctypedef shared_ptr[const CppManifest] ManifestPtr


cdef extern from "python_boundary.hpp" namespace "sabot" nogil:
    ManifestPtr manifest_from_bytes(const char*, size_t) except +raise_python_error
    void add_output(vector[OutputSpec]&, string, string, uint32_t, uint32_t, const CppScheme&, bool, vector[string]) except +


cdef extern from "sabot/shuffle_buffer.hpp" namespace "sabot" nogil:
    cdef cppclass OutputSpec:
        pass


cdef extern from "sabot/stream_guard.hpp" namespace "sabot" nogil:
    cdef cppclass ErrorSlot:
        pass


cdef extern from "sabot/partition_stream.hpp" namespace "sabot" nogil:
    cdef cppclass ReadPlan:
        const Field& schema()
        ErrorSlot& error()
        uint64_t rows()

    void open_stream(shared_ptr[ReadPlan], ArrowArrayStream*) except +raise_python_error


cdef extern from "sabot/live_channels.hpp" namespace "sabot" nogil:
    cdef cppclass OutputKey:
        pass

    cdef cppclass LiveRead:
        ErrorSlot error

    void open_live_stream(shared_ptr[LiveRead], ArrowArrayStream*) except +raise_python_error


cdef extern from "python_boundary.hpp" namespace "sabot" nogil:
    void rethrow_stream_error(ErrorSlot&) except +raise_python_error
    void add_key(vector[OutputKey]&, string, string, uint32_t, uint32_t) except +


cdef extern from "sabot/segment_store.hpp" namespace "sabot" nogil:
    cdef cppclass StoreConfig:
        uint64_t budget_bytes
        uint64_t segment_bytes
        uint64_t spill_quota_bytes
        string spill_directory

    cdef cppclass StoreMetrics:
        uint64_t budget_bytes
        uint64_t pool_bytes
        uint64_t peak_pool_bytes
        uint64_t segments
        uint64_t spilled_bytes
        uint64_t spill_events
        uint64_t disk_bytes
        uint64_t spill_ms


cdef extern from "sabot/ticket_source.hpp" nogil:
    cdef struct SabotTicketSource:
        void (*release)(void*)
        void* context

    const char* kTicketSourceCapsule


cdef extern from "sabot/shuffle_manager.hpp" namespace "sabot" nogil:
    cdef cppclass ManagerMetrics:
        StoreMetrics store
        uint64_t rows
        uint64_t bytes
        uint64_t batches
        uint64_t outputs
        uint64_t writers
        uint64_t write_ms
        uint64_t wait_ms

    cdef cppclass CppShuffleManager "sabot::ShuffleManager":
        CppShuffleManager(string, const StoreConfig&) except +raise_python_error
        void register_shuffle(const string&) except +raise_python_error
        vector[ManifestPtr] write_partition(OwnedStream, const vector[OutputSpec]&, const Watch&, bool) except +raise_python_error
        shared_ptr[ReadPlan] read(const vector[ManifestPtr]&, uint32_t, uint32_t, Watch) except +raise_python_error
        shared_ptr[LiveRead] follow(vector[OutputKey], uint32_t, uint32_t, Watch) except +raise_python_error
        ManifestPtr split(const ManifestPtr&, vector[string], uint32_t) except +raise_python_error
        void release(const string&, const string&)
        ManagerMetrics metrics()
        int arena_fd()
        void attach_peer(const string&, int, const string&) except +raise_python_error
        void detach_peer(const string&)
        void trim()
        void close()

    SabotTicketSource make_ticket_source(shared_ptr[CppShuffleManager], string) except +raise_python_error


cdef extern from "python_boundary.hpp" namespace "sabot" nogil:
    shared_ptr[ReadPlan] read_sealed(CppShuffleManager&, const string&, const string&) except +raise_python_error
    string seal_live_ticket(const vector[OutputKey]&, uint32_t, uint32_t, const string&) except +raise_python_error
    string seal_ticket(const vector[ManifestPtr]&, uint32_t, uint32_t, const string&) except +raise_python_error
