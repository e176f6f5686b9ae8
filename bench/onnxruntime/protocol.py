"""What contender.py and quantize.py share: one JSON document a line on what was standard output."""
import json
import os
import signal
import sys


def open_replies():
    """A function that sends a document. Libraries that print go to standard error from now on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)   # Ctrl-C goes to the program that started this one
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def reply(document):
        replies.write(json.dumps(document) + "\n")
        replies.flush()

    return reply


def need(reply, *modules):
    """The modules; without one of them, says which and ends."""
    found = []
    for name in modules:
        try:
            found.append(__import__(name))
        except ImportError as error:
            reply({"missing": name, "message": f"{sys.executable}: {error}"})
            sys.exit(1)
    return found


def open_session(onnxruntime, model, threads):
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def feeds_of(session, batch):
    """One feed, or one an item where the model was exported for a fixed smaller batch."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise SystemExit(f"expected a model of one input, got {len(inputs)}")
    fixed = inputs[0].shape[0] if inputs[0].shape else None
    size = fixed if isinstance(fixed, int) and 0 < fixed < len(batch) and len(batch) % fixed == 0 else len(batch)
    return [{inputs[0].name: batch[i:i + size]} for i in range(0, len(batch), size)]
