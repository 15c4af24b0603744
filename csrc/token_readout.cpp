#include "token_readout.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels.h"
#include "plan.h"
#include "pool.h"
#include "tokens.h"

namespace brainkit {
namespace {

template <typename T>
class TokenReadout {
  public:
    TokenReadout(const TokenShape& shape, const TokenInputs<T>& inputs, T* out)
        : s_(shape),
          in_(inputs),
          out_(out),
          blocks_(shape.channels, kernels_.lanes, kernels_.vectors),
          stride_(round_up(kTaps * shape.layers, kernels_.lanes) + kernels_.lanes),
          tokens_(row_of_cells(shape), row_of_tokens(inputs), blocks_),
          order_(static_cast<std::size_t>(shape.rows)) {
        std::iota(order_.begin(), order_.end(), 0);
        for (Index g = 0; g < s_.groups; ++g) {
            for (Index at = in_.starts[g]; at < in_.starts[g + 1]; at += kTile) {
                tiles_.push_back({g, at, std::min(kTile, in_.starts[g + 1] - at)});
            }
        }
    }

    void run(int threads) {
        tokens_.pack(0, threads);
        for_each(
            static_cast<Index>(tiles_.size()), threads, [&] { return make_scratch(); },
            [&](Index tile, Scratch& use) { run_tile(tiles_[tile], use); });
    }

  private:
    struct Scratch {
        Buffer<T> coefficients;  // (kTile, stride_)
        Buffer<T> weight;        // (kTile, block)
        Buffer<T> sums;          // (B, kTile)
    };

    // The cells as a grid of one row, with the global token as one of them.
    static Shape row_of_cells(const TokenShape& s) { return {s.images, s.layers, s.channels, 1, s.cells, s.rows}; }

    // Packing also needs a global token, which is never read: any array of the size will do.
    static Inputs<T> row_of_tokens(const TokenInputs<T>& in) {
        return {in.tokens, in.tokens, nullptr, nullptr, nullptr, in.weight, in.bias};
    }

    // Padding rows of a tile are computed with too: they must not hold denormal numbers, which are slow.
    Scratch make_scratch() const {
        return {zeros<T>(kTile * stride_), zeros<T>(kTile * blocks_.widest()), zeros<T>(s_.images * kTile + 4)};
    }

    void run_tile(const Tile& tile, Scratch& use) {
        const Index terms = kTaps * s_.layers;
        for (Index i = 0; i < tile.count; ++i) {
            std::copy_n(in_.coefficients + (tile.begin + i) * terms, terms, use.coefficients.data() + i * stride_);
        }
        std::fill_n(use.sums.data(), s_.images * kTile, T(0));
        for (Index block = 0; block < blocks_.count(); ++block) {
            const Index kind = blocks_.vectors(block) - 1;
            const Index rows = round_up(tile.count, kernels_.strip[kind]);
            kernels_.gather(
                {order_.data() + tile.begin, tile.count, s_.channels, blocks_.real(block), blocks_.width(block)},
                in_.weight + blocks_.first(block), use.weight.data());
            for (Index image = 0; image < s_.images; ++image) {
                const Index offset = image * tokens_.image_stride(block);
                const T* segment[kTaps];
                for (Index k = 0; k < kTaps; ++k) {
                    segment[k] = tokens_.cell(block, in_.taps[tile.group * kTaps + k]) + offset;
                }
                kernels_.forward[kind]({segment, kTaps, s_.layers, rows, use.coefficients.data(), stride_,
                                        use.weight.data(), use.sums.data() + image * kTile,
                                        tokens_.image_stride(block)});
            }
        }
        for (Index image = 0; image < s_.images; ++image) {
            T* to = out_ + image * s_.rows + tile.begin;
            const T* sums = use.sums.data() + image * kTile;
            for (Index i = 0; i < tile.count; ++i) to[i] = in_.bias[tile.begin + i] + sums[i];
        }
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const TokenShape s_;
    const TokenInputs<T> in_;
    T* const out_;
    const Blocks blocks_;
    const Index stride_;
    PackedTokens<T> tokens_;
    std::vector<std::int32_t> order_;
    std::vector<Tile> tiles_;
};

}  // namespace

template <typename T>
void token_readout(const TokenShape& shape, const TokenInputs<T>& inputs, int threads, T* out) {
    TokenReadout<T>(shape, inputs, out).run(threads);
}

template void token_readout(const TokenShape&, const TokenInputs<float>&, int, float*);
template void token_readout(const TokenShape&, const TokenInputs<double>&, int, double*);

}  // namespace brainkit
