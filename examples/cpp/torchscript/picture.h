// Pictures as tensors, read and written with libpng.
#pragma once

#include <string>

#include <torch/types.h>

// The picture as u8[h,w,3], RGB.
torch::Tensor read_png(const std::string& path);

// Writes u8[h,w,3], RGB.
void write_png(const std::string& path, const torch::Tensor& picture);
