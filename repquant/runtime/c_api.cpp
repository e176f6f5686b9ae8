#include "repquant/runtime/c_api.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "repquant/runtime/session.h"

struct rq_program {
  std::shared_ptr<const repquant::Program> program;
};

struct rq_session {
  std::shared_ptr<const repquant::Program> program;
  repquant::StopFlag stop;
  std::unique_ptr<repquant::ThreadPool> pool;
  std::unique_ptr<repquant::Session> session;
  uint64_t bytes = 0;
  // Made once, so that a run allocates nothing.
  std::vector<repquant::Shape> in_shapes, out_shapes;
  std::vector<repquant::ConstTensorView> in;
  std::vector<repquant::TensorView> out;
};

namespace {

using repquant::Error;
using repquant::ErrorCode;

thread_local std::string last_error;

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return RQ_INVALID_ARGUMENT;
    case ErrorCode::kNotFound:
      return RQ_NOT_FOUND;
    case ErrorCode::kCorruptFile:
      return RQ_CORRUPT_FILE;
    case ErrorCode::kUnsupported:
      return RQ_UNSUPPORTED;
    case ErrorCode::kResourceExhausted:
      return RQ_RESOURCE_EXHAUSTED;
    default:
      return RQ_INTERNAL;
  }
}

// No exception leaves the C interface.
template <class Fn> int guarded(Fn&& fn) {
  try {
    fn();
    return RQ_OK;
  } catch (const Error& error) {
    last_error = error.what();
    if (!error.hint().empty()) last_error += "; " + error.hint();
    return status_of(error.code());
  } catch (const repquant::Interrupted& stopped) {
    last_error = stopped.what();
    return RQ_CANCELLED;
  } catch (const std::bad_alloc&) {
    last_error = "runtime: memory: not enough";
    return RQ_RESOURCE_EXHAUSTED;
  } catch (const std::exception& error) {
    last_error = error.what();
    return RQ_INTERNAL;
  }
}

void require(bool holds, const char* expected) {
  if (!holds)
    throw Error(ErrorCode::kInvalidArgument, std::string("runtime: expected ") + expected);
}

using Ends = std::vector<int> repquant::Plan::*;
constexpr Ends kInputs = &repquant::Plan::inputs, kOutputs = &repquant::Plan::outputs;

// nullptr: no such index.
const repquant::Buffer* end_of(const rq_program* program, Ends ends, int32_t index) {
  if (program == nullptr || index < 0) return nullptr;
  const repquant::Plan& plan = program->program->plan();
  if (static_cast<size_t>(index) >= (plan.*ends).size()) return nullptr;
  return &plan.buffers[static_cast<size_t>((plan.*ends)[static_cast<size_t>(index)])];
}

const char* name_at(const repquant::Buffer* buffer) {
  return buffer == nullptr ? "" : buffer->name.c_str();
}

rq_type type_at(const repquant::Buffer* buffer) {
  if (buffer == nullptr) return RQ_OTHER_TYPE;
  switch (buffer->dtype) {
    case repquant::DType::kF32:
      return RQ_F32;
    case repquant::DType::kU8:
      return RQ_U8;
    case repquant::DType::kI32:
      return RQ_I32;
    case repquant::DType::kI64:
      return RQ_I64;
    default:
      return RQ_OTHER_TYPE;
  }
}

int64_t size_at(const repquant::Buffer* buffer) {
  return buffer == nullptr ? -1 : repquant::element_count(buffer->item_shape);
}

int32_t shape_at(const repquant::Buffer* buffer, int64_t* dims, int32_t room) {
  if (buffer == nullptr) return -1;
  const auto rank = static_cast<int32_t>(buffer->item_shape.size());
  for (int32_t i = 0; dims != nullptr && i < std::min(rank, room); ++i)
    dims[i] = buffer->item_shape[static_cast<size_t>(i)];
  return rank;
}

repquant::DType type_of(const repquant::Plan& plan, int buffer) {
  return plan.buffers[static_cast<size_t>(buffer)].dtype;
}

std::vector<repquant::Shape> shapes_of(const repquant::Plan& plan, const std::vector<int>& ends) {
  std::vector<repquant::Shape> shapes;
  for (const int end : ends) {
    repquant::Shape shape{1};
    const repquant::Shape& item = plan.buffers[static_cast<size_t>(end)].item_shape;
    shape.insert(shape.end(), item.begin(), item.end());
    shapes.push_back(std::move(shape));
  }
  return shapes;
}

}  // namespace

int rq_program_open(const char* path, const char* isa, uint64_t memory_cap, rq_program** program) {
  return guarded([&] {
    require(path != nullptr && program != nullptr, "a path and a place for the program");
    *program = nullptr;
    repquant::LoadOptions options;
    if (isa != nullptr) options.isa = isa;
    options.memory_cap = memory_cap;
    *program = new rq_program{repquant::Program::open(path, options)};
  });
}

void rq_program_close(rq_program* program) { delete program; }

const char* rq_program_isa(const rq_program* program) {
  return program == nullptr ? "" : program->program->isa().data();
}

int32_t rq_program_inputs(const rq_program* program) {
  return program == nullptr ? 0 : static_cast<int32_t>(program->program->plan().inputs.size());
}

int32_t rq_program_outputs(const rq_program* program) {
  return program == nullptr ? 0 : static_cast<int32_t>(program->program->plan().outputs.size());
}

const char* rq_program_input_name(const rq_program* program, int32_t index) {
  return name_at(end_of(program, kInputs, index));
}
const char* rq_program_output_name(const rq_program* program, int32_t index) {
  return name_at(end_of(program, kOutputs, index));
}
rq_type rq_program_input_type(const rq_program* program, int32_t index) {
  return type_at(end_of(program, kInputs, index));
}
rq_type rq_program_output_type(const rq_program* program, int32_t index) {
  return type_at(end_of(program, kOutputs, index));
}
int64_t rq_program_input_size(const rq_program* program, int32_t index) {
  return size_at(end_of(program, kInputs, index));
}
int64_t rq_program_output_size(const rq_program* program, int32_t index) {
  return size_at(end_of(program, kOutputs, index));
}
int32_t rq_program_input_shape(const rq_program* program, int32_t index, int64_t* dims,
                               int32_t room) {
  return shape_at(end_of(program, kInputs, index), dims, room);
}
int32_t rq_program_output_shape(const rq_program* program, int32_t index, int64_t* dims,
                                int32_t room) {
  return shape_at(end_of(program, kOutputs, index), dims, room);
}

int rq_session_create(rq_program* program, int64_t max_batch, int32_t threads,
                      rq_session** session) {
  return guarded([&] {
    require(program != nullptr && session != nullptr, "a program and a place for the session");
    require(threads >= 0 && threads <= 1024, "0 to 1024 threads");
    *session = nullptr;
    auto made = std::make_unique<rq_session>();
    made->program = program->program;
    if (threads > 1) made->pool = std::make_unique<repquant::ThreadPool>(threads);
    made->session = std::make_unique<repquant::Session>(
        made->program,
        repquant::SessionOptions{
            .max_batch = max_batch, .pool = made->pool.get(), .stop = &made->stop});
    const int used = made->pool == nullptr ? 1 : made->pool->size();
    made->bytes = made->program->arena_bytes(max_batch) + made->program->scratch_bytes(used);
    const repquant::Plan& plan = made->program->plan();
    made->in_shapes = shapes_of(plan, plan.inputs);
    made->out_shapes = shapes_of(plan, plan.outputs);
    for (size_t i = 0; i < plan.inputs.size(); ++i)
      made->in.push_back({nullptr, type_of(plan, plan.inputs[i]), made->in_shapes[i]});
    for (size_t i = 0; i < plan.outputs.size(); ++i)
      made->out.push_back({nullptr, type_of(plan, plan.outputs[i]), made->out_shapes[i]});
    *session = made.release();
  });
}

void rq_session_destroy(rq_session* session) { delete session; }

int rq_session_run(rq_session* session, int64_t batch, const void* const* inputs,
                   void* const* outputs) {
  return guarded([&] {
    require(session != nullptr && inputs != nullptr && outputs != nullptr,
            "a session, inputs and outputs");
    for (size_t i = 0; i < session->in.size(); ++i) {
      session->in_shapes[i][0] = batch;
      session->in[i].data = inputs[i];
    }
    for (size_t i = 0; i < session->out.size(); ++i) {
      session->out_shapes[i][0] = batch;
      session->out[i].data = outputs[i];
    }
    try {
      session->session->run(session->in, session->out);
    } catch (const repquant::Interrupted&) {
      session->stop.clear();
      throw;
    }
  });
}

void rq_session_cancel(rq_session* session) {
  if (session != nullptr) session->stop.raise();
}

uint64_t rq_session_memory(const rq_session* session) {
  return session == nullptr ? 0 : session->bytes;
}

const char* rq_last_error(void) { return last_error.c_str(); }
