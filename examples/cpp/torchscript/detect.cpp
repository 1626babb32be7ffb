// Runs a detector that `detc export --target torchscript --postprocess` wrote on a picture, without Python.
//
//   detect model.ts picture.png annotated.png [--device cuda] [--min-score 0.5]
//
// Prints each detection as "class score x0 y0 x1 y1" and draws it into a copy of the picture; masks are drawn where
// the model was exported with `--masks pasted`.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <dlfcn.h>
#include <torch/script.h>

#include "picture.h"

namespace {

struct Options {
  std::string model, picture, annotated;
  std::string device = "cpu";
  double min_score = 0.5;
};

// What the file says about itself, in its `detc.json`.
struct Metadata {
  int64_t divisibility = 1; // data's height and width are multiples of it
  int64_t shortest = 0;     // the size that the shorter side of a picture is scaled to; 0: none
  int64_t longest = 0;      // what the longer side may be then
  bool bgr = true;
};

Options parse(const std::vector<std::string>& arguments) {
  std::vector<std::string> files;
  Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool named = arguments[i] == "--device" || arguments[i] == "--min-score";
    if (!named) {
      files.push_back(arguments[i]);
    } else if (++i == arguments.size()) {
      throw std::invalid_argument("a value is missing after " + arguments[i - 1]);
    } else if (arguments[i - 1] == "--device") {
      options.device = arguments[i];
    } else {
      options.min_score = std::stod(arguments[i]);
    }
  }
  if (files.size() != 3) {
    throw std::invalid_argument("usage: detect MODEL.ts PICTURE.png ANNOTATED.png [--device D] [--min-score S]");
  }
  options.model = files[0];
  options.picture = files[1];
  options.annotated = files[2];
  return options;
}

int64_t integer(const std::string& json, const std::string& key) {
  std::smatch found;
  if (!std::regex_search(json, found, std::regex("\"" + key + "\": (-?[0-9]+)"))) {
    return 0;
  }
  return std::stoll(found[1]);
}

Metadata read_metadata(const std::string& json) {
  if (json.empty()) {
    throw std::runtime_error("the model is none of detc's: it holds no detc.json");
  }
  Metadata metadata;
  metadata.divisibility = std::max<int64_t>(integer(json, "size_divisibility"), 1);
  metadata.shortest = integer(json, "min_size_test");
  metadata.longest = integer(json, "max_size_test");
  metadata.bgr = json.find("\"input_format\": \"RGB\"") == std::string::npos;
  return metadata;
}

// torchvision's operators (NMS, RoIAlign, ...) register themselves when their libraries are loaded.
void load_vision_operators() {
  std::istringstream libraries(VISION_OPERATORS);
  for (std::string path; std::getline(libraries, path, ':');) {
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      throw std::runtime_error(
          "cannot load torchvision's operators: " + std::string(dlerror()) +
          " (what it names must be in the environment that this program was built against: if that has changed, "
          "build again)");
    }
  }
}

// The size that a picture is scaled to before it is run, rounded as detectron2's ResizeShortestEdge does.
std::array<int64_t, 2> scaled_size(int64_t height, int64_t width, const Metadata& metadata) {
  if (metadata.shortest <= 0) {
    return {height, width};
  }
  double scale = double(metadata.shortest) / double(std::min(height, width));
  double new_height = height <= width ? double(metadata.shortest) : scale * double(height);
  double new_width = width <= height ? double(metadata.shortest) : scale * double(width);
  if (metadata.longest > 0 && std::max(new_height, new_width) > double(metadata.longest)) {
    scale = double(metadata.longest) / std::max(new_height, new_width);
    new_height *= scale;
    new_width *= scale;
  }
  return {int64_t(new_height + 0.5), int64_t(new_width + 0.5)};
}

// The three inputs of the model, for a picture u8[h,w,3].
std::vector<torch::jit::IValue> make_inputs(
    const torch::Tensor& picture, const Metadata& metadata, const torch::Device& device) {
  auto image = picture.permute({2, 0, 1}).unsqueeze(0);
  const int64_t height = picture.size(0), width = picture.size(1);
  const auto size = scaled_size(height, width, metadata);
  if (size[0] != height || size[1] != width) {
    // On bytes, with antialiasing: then torch rounds as Pillow does.
    image = at::_upsample_bilinear2d_aa(image, size, /*align_corners=*/false);
  }
  image = image.to(torch::kFloat32);
  if (metadata.bgr) {
    image = image.flip({1});
  }
  const int64_t step = metadata.divisibility;
  const int64_t below = (step - size[0] % step) % step, right = (step - size[1] % step) % step;
  const auto data = at::constant_pad_nd(image, {0, right, 0, below});
  const auto im_info = torch::tensor({{float(size[0]), float(size[1]), 1.0f}});
  const auto output_size = torch::tensor({{height, width}}, torch::kInt64);
  return {data.to(device), im_info.to(device), output_size.to(device)};
}

const std::array<std::array<uint8_t, 3>, 6> kColours = {
    {{230, 60, 60}, {60, 180, 75}, {60, 100, 230}, {240, 160, 30}, {170, 60, 200}, {40, 190, 200}}};

void draw(torch::Tensor& picture, const torch::Tensor& box, const torch::Tensor& mask, int64_t category) {
  const auto& rgb = kColours[size_t(category) % kColours.size()];
  const auto colour = torch::tensor({rgb[0], rgb[1], rgb[2]}, torch::kUInt8);
  if (mask.defined()) {
    const auto mixed = (picture.to(torch::kFloat32) + colour.to(torch::kFloat32)) / 2;
    picture = torch::where(mask.unsqueeze(2), mixed.to(torch::kUInt8), picture);
  }
  const int64_t bottom = picture.size(0) - 1, right = picture.size(1) - 1;
  const auto corner = box.round().to(torch::kInt64);
  const auto at = [&](int64_t i, int64_t most) {
    return std::clamp<int64_t>(corner[i].item<int64_t>(), 0, most);
  };
  const int64_t x0 = at(0, right), y0 = at(1, bottom), x1 = at(2, right), y1 = at(3, bottom);
  for (const int64_t y : {y0, y1}) {
    picture.select(0, y).slice(0, x0, x1 + 1).copy_(colour);
  }
  for (const int64_t x : {x0, x1}) {
    picture.select(1, x).slice(0, y0, y1 + 1).copy_(colour);
  }
}

void run(const Options& options) {
  const torch::Device device(options.device);
  load_vision_operators();
  torch::jit::ExtraFilesMap extra{{"detc.json", ""}};
  auto model = torch::jit::load(options.model, device, extra);
  const Metadata metadata = read_metadata(extra["detc.json"]);
  if (model.get_method("forward").function().getSchema().arguments().size() != 4) {
    throw std::runtime_error("the model takes no output_size: export it with --postprocess");
  }
  auto picture = read_png(options.picture);

  const torch::InferenceMode no_gradients;
  const auto outputs = model.forward(make_inputs(picture, metadata, device)).toTuple();
  // A NamedTuple: boxes, scores, classes, batch_index, and masks where the model predicts them.
  const auto output = [&](size_t i) { return outputs->elements()[i].toTensor().cpu(); };
  const auto boxes = output(0), scores = output(1), classes = output(2);
  torch::Tensor masks;
  if (outputs->elements().size() > 4 && output(4).scalar_type() == torch::kBool) {
    masks = output(4);
  }
  for (int64_t i = 0; i < boxes.size(0); ++i) {
    const float score = scores[i].item<float>();
    if (score < options.min_score) {
      continue;
    }
    const int64_t category = classes[i].item<int64_t>();
    const auto corner = boxes[i].contiguous();
    const float* box = corner.data_ptr<float>();
    std::printf("%ld %.6f %.3f %.3f %.3f %.3f\n", long(category), score, box[0], box[1], box[2], box[3]);
    draw(picture, boxes[i], masks.defined() ? masks[i] : torch::Tensor(), category);
  }
  write_png(options.annotated, picture);
}

} // namespace

int main(int argc, char** argv) {
  try {
    run(parse({argv + 1, argv + argc}));
  } catch (const c10::Error& error) {
    std::cerr << "detect: " << error.what_without_backtrace() << "\n";
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "detect: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
