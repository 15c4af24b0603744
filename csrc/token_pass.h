// The second pass of the backward: gradients of the tokens. An item is a block of channels of some images, layers and
// rows of cells; it processes their vertices in the plan's order. So no two threads add to the same number, and sums do
// not depend on how the work is cut. The bands of rows, over which the global token's gradient is summed, are the same
// for every number of threads.
#pragma once

#include <vector>

#include "cell_bands.h"
#include "sorted.h"
#include "vertices.h"

namespace brainkit {

template <typename T>
class TokenPass {
  public:
    TokenPass(const Shape& shape, const Inputs<T>& inputs, const Plan& plan, const Gradients<T>& out,
              const Sorted<T>& sorted, int threads)
        : s_(shape),
          in_(inputs),
          plan_(plan),
          out_(out),
          sorted_(sorted),
          blocks_(shape.channels, kernels_.lanes, kernels_.vectors),
          bands_(shape.height, most_rows()),
          images_(std::max<Index>(shape.images, 1)),
          layers_(shape.layers),
          tokens_(shape.images * shape.layers * shape.channels),
          // Whichever is cheaper.
          scales_coefficients_(2 * kSegments * shape.layers <= blocks_.widest()),
          global_(bands_.count() * tokens_) {
        // Images of an item share the vertices' coefficients and weights, which cost about as much as one more image.
        // But every thread should get work, and stay within its memory.
        const Index image_bytes = (bands_.rows() * s_.width + 1) * cell_bytes();
        const auto cost = [&](Index images) {
            const Index parts = blocks_.count() * bands_.count() * ((s_.images + images - 1) / images);
            return (parts + threads - 1) / threads * (images + 1);
        };
        for (Index images = images_; images > 0; --images) {
            if (images_ * image_bytes > kSlabBytes || cost(images) < cost(images_)) images_ = images;
        }
        while (layers_ > 8 && items() < threads) layers_ = (layers_ + 1) / 2;
        stride_ = round_up(kSegments * layers_, kernels_.lanes) + kernels_.lanes;
    }

    void run(int threads) {
        if (s_.images == 0) return;
        for_each(
            items(), threads, [&] { return make_scratch(); }, [&](Index item, Scratch& use) { run_item(item, use); });
        sum_bands(s_, global_.data(), bands_.count(), threads, out_.global);
    }

  private:
    static constexpr Index kSlabBytes = 1 << 22;  // bytes of tokens' gradients per thread

    struct Scratch {
        Buffer<T> slab;  // images_ times (1 + rows * W, layers_, block), the global token first, and one more row
        Buffer<T> coefficients;   // (kTile, stride_)
        Buffer<T> weight;         // (kTile, block)
        Buffer<T> scaled;         // one of the two, times the gradient of an image
        std::vector<Index> rows;  // of an image's slab, to which the terms are added
    };

    // The part of an item.
    struct Part {
        Index block, band;
        Index begin, end;  // rows of cells
        Index image, images, layer, layers;
    };

    // Of a cell of one image, in a block of channels.
    Index cell_bytes() const { return s_.layers * blocks_.widest() * static_cast<Index>(sizeof(T)); }
    // Of cells in a band: eight images should fit.
    Index most_rows() const {
        return kSlabBytes / (std::min<Index>(8, std::max<Index>(1, s_.images)) * s_.width * cell_bytes());
    }

    Index image_parts() const { return (s_.images + images_ - 1) / images_; }
    Index layer_parts() const { return (s_.layers + layers_ - 1) / layers_; }
    Index items() const { return blocks_.count() * bands_.count() * image_parts() * layer_parts(); }

    Part part_of(Index item) const {
        const Index layer = item % layer_parts() * layers_;
        item /= layer_parts();
        const Index image = item % image_parts() * images_;
        item /= image_parts();
        const Index band = item % bands_.count();
        return {item / bands_.count(),
                band,
                bands_.begin(band),
                bands_.end(band),
                image,
                std::min(images_, s_.images - image),
                layer,
                std::min(layers_, s_.layers - layer)};
    }

    Scratch make_scratch() const {
        const Index width = blocks_.widest();
        return {Buffer<T>(images_ * ((bands_.rows() * s_.width + 1) * layers_ + 1) * width), zeros<T>(kTile * stride_),
                Buffer<T>(kTile * width), Buffer<T>(kTile * (scales_coefficients_ ? stride_ : width)),
                std::vector<Index>(static_cast<std::size_t>(kSegments * layers_ + kTile))};
    }

    void run_item(Index item, Scratch& use) {
        const Part part = part_of(item);
        std::fill_n(use.slab.data(), part.images * slab_of(part), T(0));
        for_each_tile_of(s_, plan_, part.begin, part.end,
                         [&](const Tile& tile, const Taps& taps, Index first, Index segments) {
                             run_tile(tile, taps, first, segments, part, use);
                         });
        unpack(part, use);
    }

    // Of one image.
    Index slab_of(const Part& part) const {
        return (((part.end - part.begin) * s_.width + 1) * part.layers + 1) * blocks_.width(part.block);
    }

    void run_tile(const Tile& tile, const Taps& taps, Index first, Index segments, const Part& part, Scratch& use) {
        const Index kind = blocks_.vectors(part.block) - 1;
        const Index width = blocks_.width(part.block);
        const Index terms = segments * part.layers;
        kernels_.outer({sorted_.shares.data() + tile.begin * kSegments + first, kSegments,
                        sorted_.layer_weights.data() + tile.begin * sorted_.layer_stride + part.layer,
                        sorted_.layer_stride, tile.count, segments, part.layers, stride_},
                       use.coefficients.data());
        kernels_.gather({plan_.members.data() + tile.begin, tile.count, s_.channels, blocks_.real(part.block), width},
                        in_.weight + blocks_.first(part.block), use.weight.data());
        Index* to = use.rows.data();
        for (Index segment = first; segment < first + segments; ++segment) {
            const Index slot = slab_slot(s_, taps, segment, part.begin);
            for (Index layer = 0; layer < part.layers; ++layer) *to++ = (slot * part.layers + layer) * width;
        }
        TokenStep<T> step{};
        step.rows = tile.count;
        step.terms = round_up(terms, kernels_.strip[kind]);
        step.coefficients = use.coefficients.data();
        step.coefficient_stride = stride_;
        step.weight = use.weight.data();
        step.offsets = use.rows.data();
        // Target of padding terms.
        std::fill(to, use.rows.data() + step.terms, slab_of(part) - width);
        for (Index image = 0; image < part.images; ++image) {
            const T* grad = sorted_.grad.data() + (part.image + image) * sorted_.members + tile.begin;
            if (scales_coefficients_) {
                kernels_.scale({grad, use.coefficients.data(), use.scaled.data(), tile.count, stride_});
                step.coefficients = use.scaled.data();
            } else {
                step.factor = grad;
                step.scaled = use.scaled.data();
            }
            step.out = use.slab.data() + image * slab_of(part);
            kernels_.tokens[kind](step);
        }
    }

    void unpack(const Part& part, const Scratch& use) {
        const Index cells = s_.height * s_.width;
        const Index width = blocks_.width(part.block);
        const Index real = blocks_.real(part.block);
        for (Index image = 0; image < part.images; ++image) {
            for (Index layer = 0; layer < part.layers; ++layer) {
                const T* from = use.slab.data() + image * slab_of(part) + layer * width;
                const Index row = (part.image + image) * s_.layers + part.layer + layer;
                const Index step = part.layers * width;
                const Index channel = row * s_.channels + blocks_.first(part.block);
                // One vector of channels at a time, so that writes are as contiguous as possible.
                for (Index d = 0; d < real; d += kernels_.lanes) {
                    kernels_.transpose(from + step + d, step, (part.end - part.begin) * s_.width,
                                       std::min(kernels_.lanes, real - d),
                                       out_.local + (channel + d) * cells + part.begin * s_.width, cells);
                }
                std::copy_n(from, real, global_.data() + part.band * tokens_ + channel);
            }
        }
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const Shape s_;
    const Inputs<T> in_;
    const Plan& plan_;
    const Gradients<T> out_;
    const Sorted<T>& sorted_;
    const Blocks blocks_;
    const CellBands bands_;
    Index images_, layers_;  // most per item
    Index stride_ = 0;
    const Index tokens_;  // numbers in all global tokens
    const bool scales_coefficients_;
    Buffer<T> global_;  // (bands, B, L, D)
};

}  // namespace brainkit
