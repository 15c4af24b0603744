// The second pass of the backward: the gradients of the tokens. An item owns a block of channels of some images, layers
// and rows of cells, and goes through their vertices in the plan's order: no two threads add to one place, and how the
// work is cut changes no sum. Only the bands of rows that the global token's gradient is summed over are the same
// whatever the number of threads.
#pragma once

#include <vector>

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
          band_(band_rows()),
          images_(std::max<Index>(shape.images, 1)),
          layers_(shape.layers),
          tokens_(shape.images * shape.layers * shape.channels),
          // What is cheaper.
          scales_coefficients_(2 * kSegments * shape.layers <= blocks_.widest()),
          global_(bands() * tokens_) {
        // Images of one item share the vertices' coefficients and weights, which costs about as much as one image more.
        // But every thread should have its share, and hold no more than it should.
        const Index image_bytes = (band_ * s_.width + 1) * row_bytes();
        const auto cost = [&](Index images) {
            const Index parts = blocks_.count() * bands() * ((s_.images + images - 1) / images);
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
        sum_global(threads);
    }

  private:
    static constexpr Index kSlabBytes = 1 << 22;  // gradients of tokens that a thread holds

    struct Scratch {
        Buffer<T> slab;  // images_ times (1 + band_ * W, layers_, block), the global token first, and a row more
        Buffer<T> coefficients;   // (kTile, stride_)
        Buffer<T> weight;         // (kTile, block)
        Buffer<T> scaled;         // one of the two, times the gradient of an image
        std::vector<Index> rows;  // of an image's slab, where the terms are added to
    };

    // What an item owns.
    struct Part {
        Index block, band;
        Index begin, end;  // rows of cells
        Index image, images, layer, layers;
    };

    // Of one cell, layers and a block of channels.
    Index row_bytes() const { return s_.layers * blocks_.widest() * static_cast<Index>(sizeof(T)); }

    // Rows of cells in a band, as even as can be: eight images should fit, but a band is not to be narrow, since the
    // vertices between two bands are read for both.
    Index band_rows() const {
        const Index most =
            kSlabBytes / (std::min<Index>(8, std::max<Index>(1, s_.images)) * s_.width * row_bytes() + 1);
        const Index bands = (s_.height + std::max<Index>(4, most) - 1) / std::max<Index>(4, most);
        return (s_.height + bands - 1) / bands;
    }

    Index bands() const { return (s_.height + band_ - 1) / band_; }
    Index image_parts() const { return (s_.images + images_ - 1) / images_; }
    Index layer_parts() const { return (s_.layers + layers_ - 1) / layers_; }
    Index items() const { return blocks_.count() * bands() * image_parts() * layer_parts(); }

    Part part_of(Index item) const {
        const Index layer = item % layer_parts() * layers_;
        item /= layer_parts();
        const Index image = item % image_parts() * images_;
        item /= image_parts();
        const Index band = item % bands();
        return {item / bands(), band,
                band * band_,   std::min(s_.height, (band + 1) * band_),
                image,          std::min(images_, s_.images - image),
                layer,          std::min(layers_, s_.layers - layer)};
    }

    Scratch make_scratch() const {
        const Index width = blocks_.widest();
        return {Buffer<T>(images_ * ((band_ * s_.width + 1) * layers_ + 1) * width), zeros<T>(kTile * stride_),
                Buffer<T>(kTile * width), Buffer<T>(kTile * (scales_coefficients_ ? stride_ : width)),
                std::vector<Index>(static_cast<std::size_t>(kSegments * layers_ + kTile))};
    }

    void run_item(Index item, Scratch& use) {
        const Part part = part_of(item);
        std::fill_n(use.slab.data(), part.images * slab_of(part), T(0));
        // Group row r has taps in the rows r - 1 and r of cells, and gives to the global token where its upper taps
        // are.
        for (Index row = part.begin; row <= part.end; ++row) {
            const bool upper = row > part.begin || row == 0;
            const bool lower = row < part.end;
            const Index last = plan_.row_tiles[row + 1];
            for (Index tile = plan_.row_tiles[row]; tile < last; ++tile) {
                run_tile(plan_.tiles[tile], part, upper, lower, use);
            }
        }
        unpack(part, use);
    }

    // Of one image.
    Index slab_of(const Part& part) const {
        return (((part.end - part.begin) * s_.width + 1) * part.layers + 1) * blocks_.width(part.block);
    }

    void run_tile(const Tile& tile, const Part& part, bool upper, bool lower, Scratch& use) {
        const Taps taps = taps_of(tile.group, s_.height, s_.width);
        Index upper_taps = 0;
        while (upper_taps < taps.count && taps.corner[upper_taps] < 2) ++upper_taps;
        const Index first = upper ? 0 : 1 + upper_taps;
        const Index segments = (lower ? taps.count + 1 : 1 + upper_taps) - first;
        if (segments == 0) return;
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
            const Index slot = segment == 0 ? 0 : 1 + taps.cell[segment - 1] - part.begin * s_.width;
            for (Index layer = 0; layer < part.layers; ++layer) *to++ = (slot * part.layers + layer) * width;
        }
        TokenStep<T> step{};
        step.rows = tile.count;
        step.terms = round_up(terms, kernels_.strip[kind]);
        step.coefficients = use.coefficients.data();
        step.coefficient_stride = stride_;
        step.weight = use.weight.data();
        step.offsets = use.rows.data();
        // Where padding is added to.
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
                // A vector of channels at a time, so that what is written lies together as far as can be.
                for (Index d = 0; d < real; d += kernels_.lanes) {
                    kernels_.transpose(from + step + d, step, (part.end - part.begin) * s_.width,
                                       std::min(kernels_.lanes, real - d),
                                       out_.local + (channel + d) * cells + part.begin * s_.width, cells);
                }
                std::copy_n(from, real, global_.data() + part.band * tokens_ + channel);
            }
        }
    }

    void sum_global(int threads) {
        for_each(s_.images * s_.layers, threads, [&](Index row) {
            T* to = out_.global + row * s_.channels;
            const T* from = global_.data() + row * s_.channels;
            std::copy_n(from, s_.channels, to);
            for (Index band = 1; band < bands(); ++band) {
                from += tokens_;
                for (Index d = 0; d < s_.channels; ++d) to[d] += from[d];
            }
        });
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const Shape s_;
    const Inputs<T> in_;
    const Plan& plan_;
    const Gradients<T> out_;
    const Sorted<T>& sorted_;
    const Blocks blocks_;
    const Index band_;
    Index images_, layers_;  // that an item owns at most
    Index stride_ = 0;
    const Index tokens_;  // numbers in all global tokens
    const bool scales_coefficients_;
    Buffer<T> global_;  // (bands, B, L, D)
};

}  // namespace brainkit
