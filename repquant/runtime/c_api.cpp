#include "repquant/runtime/c_api.h"

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
  std::unique_ptr<repquant::ThreadPool> pool;
  std::unique_ptr<repquant::Session> session;
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

int64_t size_of_item(const repquant::Plan& plan, const std::vector<int>& ends, int32_t index) {
  if (index < 0 || index >= static_cast<int32_t>(ends.size())) return -1;
  const auto buffer = static_cast<size_t>(ends[static_cast<size_t>(index)]);
  return repquant::element_count(plan.buffers[buffer].item_shape);
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

int rq_program_open(const char* path, const char* isa, rq_program** program) {
  return guarded([&] {
    require(path != nullptr && program != nullptr, "a path and a place for the program");
    *program = nullptr;
    repquant::LoadOptions options;
    if (isa != nullptr) options.isa = isa;
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

int64_t rq_program_input_size(const rq_program* program, int32_t index) {
  if (program == nullptr) return -1;
  return size_of_item(program->program->plan(), program->program->plan().inputs, index);
}

int64_t rq_program_output_size(const rq_program* program, int32_t index) {
  if (program == nullptr) return -1;
  return size_of_item(program->program->plan(), program->program->plan().outputs, index);
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
        made->program, repquant::SessionOptions{.max_batch = max_batch, .pool = made->pool.get()});
    const repquant::Plan& plan = made->program->plan();
    made->in_shapes = shapes_of(plan, plan.inputs);
    made->out_shapes = shapes_of(plan, plan.outputs);
    for (const repquant::Shape& shape : made->in_shapes)
      made->in.push_back({nullptr, repquant::DType::kF32, shape});
    for (const repquant::Shape& shape : made->out_shapes)
      made->out.push_back({nullptr, repquant::DType::kF32, shape});
    *session = made.release();
  });
}

void rq_session_destroy(rq_session* session) { delete session; }

int rq_session_run(rq_session* session, int64_t batch, const float* const* inputs,
                   float* const* outputs) {
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
    session->session->run(session->in, session->out);
  });
}

const char* rq_last_error(void) { return last_error.c_str(); }
