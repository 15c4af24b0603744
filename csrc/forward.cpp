#include <limits>

#include "kernels.h"
#include "plan.h"
#include "pool.h"
#include "tokens.h"

namespace brainkit {
namespace {

// Tiles a thread takes at a time. Neighbours share their tokens.
constexpr Index kTilesPerItem = 4;

template <typename T>
struct Scratch {
    Buffer<T> coefficients;  // (kTile, 5L padded)
    Buffer<T> weight;        // (kTile, block)
    Buffer<T> sums;          // (B, kTile)
};

template <typename T>
class Forward {
  public:
    Forward(const Shape& shape, const Inputs<T>& inputs, int threads, T* out)
        : s_(shape),
          in_(inputs),
          out_(out),
          plan_(make_plan(shape, inputs.locations, threads)),
          blocks_(shape.channels, kernels_.lanes, kernels_.vectors),
          rows_(images_first(shape)),
          tokens_(pack_tokens(shape, inputs, blocks_, rows_, threads)) {}

    void run(int threads) {
        const Index tiles = static_cast<Index>(plan_.tiles.size());
        auto make_scratch = [&] {
            return Scratch<T>{Buffer<T>(kTile * kSegments * s_.layers), Buffer<T>(kTile * blocks_.widest()),
                              Buffer<T>(s_.images * kTile)};
        };
        for_each((tiles + kTilesPerItem - 1) / kTilesPerItem, threads, make_scratch, [&](Index item, Scratch<T>& use) {
            const Index end = std::min(tiles, (item + 1) * kTilesPerItem);
            for (Index tile = item * kTilesPerItem; tile < end; ++tile) run_tile(plan_.tiles[tile], use);
        });
        for (const std::int32_t v : plan_.not_finite) {
            for (Index image = 0; image < s_.images; ++image) {
                out_[image * s_.vertices + v] = std::numeric_limits<T>::quiet_NaN();
            }
        }
    }

  private:
    void run_tile(const Tile& tile, Scratch<T>& use) {
        const std::int32_t* members = plan_.members.data() + tile.begin;
        const Taps taps = taps_of(tile.group, s_.height, s_.width);
        const Index padded_rows = round_up(tile.count, kernels_.strip);
        load(tile, members, taps, padded_rows, use);
        std::fill_n(use.sums.data(), s_.images * kTile, T(0));
        const T* segment[kSegments];
        ForwardStep<T> step{segment,
                            taps.count + 1,
                            s_.layers,
                            padded_rows,
                            use.coefficients.data(),
                            (taps.count + 1) * s_.layers,
                            use.weight.data(),
                            nullptr};
        for (Index block = 0; block < blocks_.count(); ++block) {
            const Index width = blocks_.width(block);
            const auto kernel = kernels_.forward[blocks_.vectors(block) - 1];
            gather_weights(in_.weight, s_.channels, blocks_, block, members, tile.count, padded_rows,
                           use.weight.data());
            for (Index image = 0; image < s_.images; ++image) {
                const T* slab = tokens_.data() + rows_.count * blocks_.first(block) + image * rows_.image * width;
                for (Index t = 0; t < taps.count; ++t) segment[t] = slab + taps.cell[t] * rows_.cell * width;
                segment[taps.count] = slab + s_.height * s_.width * rows_.cell * width;
                step.out = use.sums.data() + image * kTile;
                kernel(step);
            }
        }
        for (Index image = 0; image < s_.images; ++image) {
            for (Index i = 0; i < tile.count; ++i) {
                const T sum = use.sums[image * kTile + i];
                out_[image * s_.vertices + members[i]] = in_.bias[members[i]] + sum / static_cast<T>(s_.channels);
            }
        }
    }

    void load(const Tile& tile, const std::int32_t* members, const Taps& taps, Index padded_rows, Scratch<T>& use) {
        const Index terms = (taps.count + 1) * s_.layers;
        for (Index i = 0; i < tile.count; ++i) {
            const Index v = members[i];
            T shares[kSegments];
            fill_shares(s_, taps, in_.locations + 2 * v, in_.scale[v], shares);
            const T* layer_weights = in_.layer_weights + v * s_.layers;
            T* to = use.coefficients.data() + i * terms;
            for (Index t = 0; t <= taps.count; ++t) {
                for (Index layer = 0; layer < s_.layers; ++layer) *to++ = shares[t] * layer_weights[layer];
            }
        }
        std::fill_n(use.coefficients.data() + tile.count * terms, (padded_rows - tile.count) * terms, T(0));
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const Shape s_;
    const Inputs<T> in_;
    T* const out_;
    const Plan plan_;
    const Blocks blocks_;
    const Rows rows_;
    const Buffer<T> tokens_;
};

}  // namespace

template <typename T>
void factor_readout_forward(const Shape& shape, const Inputs<T>& inputs, int threads, T* out) {
    Forward<T>(shape, inputs, threads, out).run(threads);
}

template void factor_readout_forward(const Shape&, const Inputs<float>&, int, float*);
template void factor_readout_forward(const Shape&, const Inputs<double>&, int, double*);

const char* instruction_set() { return kernels<float>().name; }

}  // namespace brainkit
