#!/usr/bin/env python3
"""onnxruntime as a contender of `repquant bench`: contender.py MODEL INPUT.npy OUTPUT.npy --threads N.

Loads the model, writes its answer to the input, and says that it is ready. Then one line in, the length of a window in
seconds, is one line out: {"seconds": mean of a call in that window}; a window has at least one call, and one before it
that is not timed. Ends with its standard input.
"""
import argparse
import platform
import sys
import time

from protocol import feeds_of, need, open_replies, open_session


def main():
    reply = open_replies()
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    numpy, onnxruntime = need(reply, "numpy", "onnxruntime")
    session = open_session(onnxruntime, args.model, args.threads)
    feeds = feeds_of(session, numpy.ascontiguousarray(numpy.load(args.input)))

    def call():
        return [session.run(None, feed)[0] for feed in feeds]

    numpy.save(args.output, numpy.ascontiguousarray(numpy.concatenate(call()), dtype=numpy.float32))
    reply({"ready": True, "onnxruntime": onnxruntime.__version__, "python": platform.python_version(), "calls": len(feeds)})
    clock = time.perf_counter
    for line in sys.stdin:
        window = float(line)
        call()
        begin, now, count = clock(), 0.0, 0
        while count == 0 or now - begin < window:
            call()
            count += 1
            now = clock()
        reply({"seconds": (now - begin) / count})


if __name__ == "__main__":
    main()
