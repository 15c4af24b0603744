// The first pass of the backward: gradients of everything that belongs to a vertex. With
// U[v,k,:] = sum_b grad[b,v] T[k,b,:], those of the weight and of the coefficients need one product.
#pragma once

#include "sorted.h"
#include "tokens.h"
#include "vertices.h"

namespace brainkit {

template <typename T>
class VertexPass {
  public:
    VertexPass(const Shape& shape, const Inputs<T>& inputs, const Plan& plan, const Gradients<T>& out,
               Sorted<T>& sorted)
        : s_(shape),
          in_(inputs),
          plan_(plan),
          out_(out),
          sorted_(sorted),
          blocks_(shape.channels, kernels_.lanes, kernels_.vectors),
          stride_(round_up(kSegments * shape.layers, kernels_.lanes) + kernels_.lanes),
          tokens_(shape, inputs, blocks_) {}

    void run(int threads) {
        for_each_tile(
            plan_, tokens_.bands(), threads, [&](Index band) { tokens_.pack(band, threads); },
            [&] { return make_scratch(); }, [&](const Tile& tile, Scratch& use) { run_tile(tile, use); });
    }

  private:
    static constexpr Index kTokenBytes = 24576;  // bytes of tokens per call of the kernel: well within the L1 cache

    struct Scratch {
        Buffer<T> coefficients;       // (kTile, stride_)
        Buffer<T> grad_coefficients;  // (kTile, stride_)
        Buffer<T> grad_shares;        // (kTile, kSegments)
        Buffer<T> grad_layers;        // (kTile, layer_stride)
        Buffer<T> weight;             // (kTile, block)
        Buffer<T> grad_weight;        // (kTile, block)
    };

    // Padding rows of a tile are computed with too: they must not hold denormal numbers, which are slow.
    Scratch make_scratch() const {
        return {zeros<T>(kTile * stride_),          zeros<T>(kTile * stride_),
                zeros<T>(kTile * kSegments),        zeros<T>(kTile * sorted_.layer_stride),
                zeros<T>(kTile * blocks_.widest()), zeros<T>(kTile * blocks_.widest())};
    }

    void run_tile(const Tile& tile, Scratch& use) {
        const std::int32_t* members = plan_.members.data() + tile.begin;
        const Taps taps = taps_of(tile.group, s_.height, s_.width);
        T* shares = sorted_.shares.data() + tile.begin * kSegments;
        T* layer_weights = sorted_.layer_weights.data() + tile.begin * sorted_.layer_stride;
        load_selectors(s_, in_, taps, members, tile.count, sorted_.layer_stride, shares, layer_weights);
        const SelectorStep<T> selectors{shares,     kSegments,      layer_weights, sorted_.layer_stride,
                                        tile.count, taps.count + 1, s_.layers,     stride_};
        kernels_.outer(selectors, use.coefficients.data());
        if (s_.images == 1) {
            kernels_.scale({sorted_.grad.data() + tile.begin, use.coefficients.data(), use.coefficients.data(),
                            tile.count, stride_});
        }
        std::fill_n(use.grad_coefficients.data(), kTile * stride_, T(0));
        for (Index block = 0; block < blocks_.count(); ++block) run_block(tile, taps, block, use);
        kernels_.outer_backward(selectors, use.grad_coefficients.data(), use.grad_shares.data(),
                                use.grad_layers.data());
        for (Index i = 0; i < tile.count; ++i) {
            const Index v = members[i];
            std::copy_n(use.grad_layers.data() + i * sorted_.layer_stride, s_.layers,
                        out_.layer_weights + v * s_.layers);
            store_selector_gradients(s_, in_, taps, v, use.grad_shares.data() + i * kSegments, out_);
        }
    }

    void run_block(const Tile& tile, const Taps& taps, Index block, Scratch& use) {
        const std::int32_t* members = plan_.members.data() + tile.begin;
        const Index kind = blocks_.vectors(block) - 1;
        const Index width = blocks_.width(block);
        const Index rows = round_up(tile.count, kernels_.strip[kind]);
        const Moves moves{members, tile.count, s_.channels, blocks_.real(block), width};
        kernels_.gather(moves, in_.weight + blocks_.first(block), use.weight.data());
        std::fill_n(use.grad_weight.data(), rows * width, T(0));
        VertexStep<T> step{};
        step.image_stride = tokens_.image_stride(block);
        step.images = s_.images;
        step.rows = rows;
        const T* grad = sorted_.grad.data() + tile.begin;
        if (s_.images == 1) {
            // Then U need not be computed: its factors are multiplied with the gradient instead.
            kernels_.scale({grad, use.weight.data(), use.weight.data(), tile.count, width});
        } else {
            step.grad = grad;
            step.grad_stride = sorted_.members;
        }
        step.coefficient_stride = stride_;
        step.weight = use.weight.data();
        step.grad_weight = use.grad_weight.data();
        const Index row_bytes = s_.images * width * static_cast<Index>(sizeof(T));
        // The kernel processes terms by fours.
        const Index fit = std::max<Index>(1, kTokenBytes / std::max<Index>(row_bytes, 1));
        const Index together = fit < 4 ? fit : fit / 4 * 4;
        for (Index t = 0; t <= taps.count; ++t) {
            const T* segment = t == 0 ? tokens_.global(block) : tokens_.cell(block, taps.cell[t - 1]);
            const T* next = t < taps.count ? tokens_.cell(block, taps.cell[t]) : segment;
            step.ahead = next - segment;
            for (Index layer = 0; layer < s_.layers; layer += together) {
                step.tokens = segment + layer * width;
                step.terms = std::min(together, s_.layers - layer);
                step.coefficients = use.coefficients.data() + t * s_.layers + layer;
                step.grad_coefficients = use.grad_coefficients.data() + t * s_.layers + layer;
                kernels_.vertices[kind](step);
            }
        }
        kernels_.scatter(moves, use.grad_weight.data(), out_.weight + blocks_.first(block));
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const Shape s_;
    const Inputs<T> in_;
    const Plan& plan_;
    const Gradients<T> out_;
    Sorted<T>& sorted_;
    const Blocks blocks_;
    const Index stride_;
    PackedTokens<T> tokens_;
};

}  // namespace brainkit
