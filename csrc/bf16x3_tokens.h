// Tokens in two planes of bfloat16, and the weights and selectors of a tile's vertices.
#pragma once

#include "bands.h"
#include "bf16x3.h"
#include "buffer.h"
#include "vertices.h"

namespace brainkit {

constexpr Index kColumns = 64;    // most vertices of a tile; they are columns here
constexpr Index kRowChunk = 128;  // rows of tokens per step

// Tokens of one cell are a matrix: a row for each image and layer, image by image, or one for each channel.
enum class Order { kRows, kChannels };

// For every cell (outer, inner), outer padded to tiles' sides and inner to their depth, with zeros.
class SplitTokens {
  public:
    SplitTokens(const Shape& s, const Inputs<float>& in, const Bands& bands, Order order)
        : in_(in),
          bands_(bands),
          grid_(s.height * s.width),
          outer_(order == Order::kRows ? s.images * s.layers : s.channels),
          inner_(order == Order::kRows ? s.channels : s.images * s.layers),
          outer_step_(order == Order::kRows ? s.channels : 1),
          inner_step_(order == Order::kRows ? 1 : s.channels),
          stride_(round_up(inner_, kTileDepth)),
          cell_stride_(cell_size(outer_, inner_)),
          high_(zeros<Bf16>(bands.slots() * cell_stride_)),
          low_(zeros<Bf16>(bands.slots() * cell_stride_)) {}

    // Of one cell, in one plane. An odd number of cache lines: see PackedTokens.
    static Index cell_size(Index outer, Index inner) {
        return (round_up(outer, kTileSide) * round_up(inner, kTileDepth) / kTileDepth | 1) * kTileDepth;
    }

    void pack(Index band, int threads) {
        const auto make_scratch = [&] { return Buffer<float>(bands_.slots() * inner_); };
        for_each(outer_, threads, make_scratch, [&](Index outer, Buffer<float>& turned) {
            bands_.for_each_piece(band, [&](Index cell, Index cells, Index slot) {
                const float* from = in_.local + outer * outer_step_ * grid_ + cell;
                kernels_.transpose(from, inner_step_ * grid_, inner_, cells, turned.data(), inner_);
                split(turned.data(), cells, outer, slot);
            });
            if (band > 0) return;
            for (Index i = 0; i < inner_; ++i) turned[i] = in_.global[outer * outer_step_ + i * inner_step_];
            split(turned.data(), 1, outer, bands_.global_slot());
        });
    }

    Planes at(Index slot, Index outer, Index inner) const {
        const Index offset = slot * cell_stride_ + outer * stride_ + inner;
        return {const_cast<Bf16*>(high_.data()) + offset, const_cast<Bf16*>(low_.data()) + offset};
    }
    Index stride() const { return stride_; }

  private:
    void split(const float* from, Index cells, Index outer, Index slot) const {
        tiles_.split({from, inner_, nullptr, cells, inner_, at(slot, outer, 0), cell_stride_});
    }

    const Kernels<float>& kernels_ = kernels<float>();
    const Bf16x3Kernels& tiles_ = bf16x3_kernels();
    const Inputs<float> in_;
    const Bands bands_;
    const Index grid_;
    const Index outer_, inner_, outer_step_, inner_step_;
    const Index stride_, cell_stride_;
    Buffer<Bf16> high_, low_;
};

// A tile's vertices as columns, padded with zeros. Strides are the number of columns.
class Columns {
  public:
    Columns(const Shape& s, Index layer_stride)
        : depth_(round_up(s.channels, kTileDepth)),
          layer_stride_(layer_stride),
          rows_(kColumns * depth_),
          turned_(kColumns * depth_),
          high_(kColumns * depth_),
          low_(kColumns * depth_),
          shares_(kSegments * kColumns),
          layers_(layer_stride * kColumns) {}

    void load_weights(const Shape& s, const Inputs<float>& in, const std::int32_t* members, Index count,
                      Index columns) {
        columns_ = columns;
        kernels_.gather({members, count, s.channels, s.channels, depth_}, in.weight, rows_.data());
        std::fill(rows_.data() + count * depth_, rows_.data() + columns * depth_, 0.0f);
    }

    // From the result of load_selectors.
    void load_selectors(Index count, const float* shares, const float* layer_weights) {
        std::fill_n(shares_.data(), kSegments * columns_, 0.0f);
        std::fill_n(layers_.data(), layer_stride_ * columns_, 0.0f);
        kernels_.transpose(shares, kSegments, count, kSegments, shares_.data(), columns_);
        kernels_.transpose(layer_weights, layer_stride_, count, layer_stride_, layers_.data(), columns_);
    }

    // Channels by columns, as the second factor of a product.
    Planes weights_by_channel() {
        kernels_.transpose(rows_.data(), depth_, columns_, depth_, turned_.data(), columns_);
        tiles_.split_pairs({turned_.data(), columns_, nullptr, depth_, columns_, planes(), 2 * columns_});
        return planes();
    }
    // Columns by channels.
    Planes weights_by_column() {
        tiles_.split_pairs({rows_.data(), depth_, nullptr, columns_, depth_, planes(), 2 * depth_});
        return planes();
    }

    Index count() const { return columns_; }
    Index depth() const { return depth_; }
    const float* share(Index segment) const { return shares_.data() + segment * columns_; }
    const float* layer(Index layer) const { return layers_.data() + layer * columns_; }

  private:
    Planes planes() { return {high_.data(), low_.data()}; }

    const Kernels<float>& kernels_ = kernels<float>();
    const Bf16x3Kernels& tiles_ = bf16x3_kernels();
    Index columns_ = 0;
    const Index depth_, layer_stride_;
    Buffer<float> rows_, turned_;
    Buffer<Bf16> high_, low_;
    Buffer<float> shares_, layers_;
};

// to[v] += factor[v] * from[v]
inline void add_product(const float* factor, const float* from, Index columns, float* to) {
    for (Index v = 0; v < columns; ++v) to[v] += factor[v] * from[v];
}

}  // namespace brainkit
