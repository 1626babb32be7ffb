#include "picture.h"

#include <cstring>
#include <stdexcept>

#include <png.h>

namespace {

png_image new_image() {
  png_image image;
  std::memset(&image, 0, sizeof(image));
  image.version = PNG_IMAGE_VERSION;
  return image;
}

[[noreturn]] void fail(const std::string& what, const std::string& path, png_image& image) {
  const std::string message = what + " " + path + ": " + image.message;
  png_image_free(&image);
  throw std::runtime_error(message);
}

} // namespace

torch::Tensor read_png(const std::string& path) {
  png_image image = new_image();
  if (!png_image_begin_read_from_file(&image, path.c_str())) {
    fail("cannot read", path, image);
  }
  image.format = PNG_FORMAT_RGB;
  auto pixels = torch::empty({image.height, image.width, 3}, torch::kUInt8);
  if (!png_image_finish_read(&image, nullptr, pixels.data_ptr<uint8_t>(), 0, nullptr)) {
    fail("cannot read", path, image);
  }
  return pixels;
}

void write_png(const std::string& path, const torch::Tensor& picture) {
  const auto pixels = picture.contiguous();
  png_image image = new_image();
  image.height = static_cast<png_uint_32>(pixels.size(0));
  image.width = static_cast<png_uint_32>(pixels.size(1));
  image.format = PNG_FORMAT_RGB;
  if (!png_image_write_to_file(&image, path.c_str(), 0, pixels.data_ptr<uint8_t>(), 0, nullptr)) {
    fail("cannot write", path, image);
  }
}
