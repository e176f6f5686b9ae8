#pragma once
// Labelled inputs, one at a time, from files.
//
// open_dataset takes
//   a folder          JPEG and PNG files, here or in sub-folders, sorted by relative name
//                     (bytewise); names that begin with "." and files of other extensions are
//                     ignored. Labels, in this order: options.labels, labels.txt in the folder, the
//                     sub-folders (numbered from 0 in the order of their names, or by their line in
//                     options.class_names), none.
//   *idx3-ubyte[.gz]  IDX images [N, H, W] of uint8. Labels: options.labels, else the file whose
//                     name has labels-idx1 for images-idx3, else none.
//   .npy .npz .safetensors
//                     an array [N, ...]. uint8 [N, C, H, W], [N, H, W, C] or [N, H, W] is pixels
//                     and goes through the preprocessing; every other type is used as it is (f64
//                     becomes f32). In .npz and .safetensors: options.array, else "images",
//                     "input", "inputs", "pixels", "x", "data", "arr_0", else the only array beside
//                     "labels"; labels from "labels". Models of several inputs: one array [N, ...]
//                     an input, by the names in options.inputs. What the answer is compared with,
//                     f32 [N, ...]: the first of options.targets that is there.
//   one image file    a data set of one
// and understands a trailing "[begin:end]" (either may be empty) as options.begin and options.end.
//
// A label file holds "file label" lines (folders) or one label a line (the others); it must name
// every item once and nothing else.
//
// Errors: kNotFound, kCorruptFile (not an image, truncated, label file of the wrong length, ...),
// kInvalidArgument (empty folder or range).
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "repquant/core/tensor.h"
#include "repquant/data/preprocess.h"

namespace repquant {

struct Sample {
  Tensor input;        // f32 [C, H, W] of images; an array's item otherwise
  int64_t label = -1;  // -1: unknown
  std::string name;
  std::vector<Tensor> others;  // inputs 1, 2, ... of models that have more
  Tensor target;               // no elements: none
};

class Dataset {  // every function may be called from several threads
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  virtual Sample load(int64_t index) const = 0;
  // SHA-256 of the content: the file's bytes (folders), the item's bytes (arrays, IDX). Equal
  // digests mean equal inputs; data sets of different kinds do not compare.
  virtual std::string digest(int64_t index) const = 0;
  virtual std::string name(int64_t index) const = 0;
  virtual int64_t label(int64_t index) const = 0;                   // without decoding
  virtual const std::vector<std::string>& class_names() const = 0;  // empty: unknown
  virtual bool has_targets() const { return false; }
  bool has_labels() const { return size() > 0 && label(0) >= 0; }
};

struct DatasetOptions {
  std::filesystem::path labels;       // a label file; empty: as described above
  std::filesystem::path class_names;  // one name a line, line i names label i
  std::string array;                  // which array of an .npz or .safetensors file
  std::vector<std::string> inputs;    // the model's, in its order; empty: one, of any name
  std::vector<std::string> targets{"target"};
  Preprocess preprocess;
  int64_t begin = 0, end = -1;  // range of the sorted items; -1: to the end
};

std::unique_ptr<Dataset> open_dataset(const std::filesystem::path& path,
                                      const DatasetOptions& options = {});

std::vector<std::string> read_class_names(const std::filesystem::path& path);

// Inputs of `indices` stacked: [indices.size(), item shape...]. Items of different shapes throw
// kCorruptFile naming the first that differs.
Tensor load_batch(const Dataset& dataset, std::span<const int64_t> indices);
// Every input of the model, in its order.
std::vector<Tensor> load_inputs(const Dataset& dataset, std::span<const int64_t> indices);

}  // namespace repquant
