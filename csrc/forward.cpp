#include "kernels.h"
#include "plan.h"
#include "sorted.h"
#include "tokens.h"
#include "vertices.h"

namespace brainkit {
namespace {

template <typename T>
class Forward {
  public:
    Forward(const Shape& shape, const Inputs<T>& inputs, int threads, T* out)
        : s_(shape),
          in_(inputs),
          out_(out),
          plan_(make_plan(shape, inputs.locations, kTile, threads)),
          members_(static_cast<Index>(plan_.members.size())),
          blocks_(shape.channels, kernels_.lanes, kernels_.vectors),
          layer_stride_(round_up(shape.layers, kernels_.lanes)),
          coefficient_stride_(round_up(kSegments * shape.layers, kernels_.lanes) + kernels_.lanes),
          tokens_(shape, inputs, blocks_),
          sorted_(shape.images * members_) {}

    void run(int threads) {
        for_each_tile(
            plan_, tokens_.bands(), threads, [&](Index band) { tokens_.pack(band, threads); },
            [&] { return make_scratch(); }, [&](const Tile& tile, Scratch& use) { run_tile(tile, use); });
        unsort(s_, in_, plan_, sorted_.data(), threads, out_);
    }

  private:
    struct Scratch {
        Buffer<T> shares;         // (kTile, kSegments)
        Buffer<T> layer_weights;  // (kTile, layer_stride_)
        Buffer<T> coefficients;   // (kTile, coefficient_stride_)
        Buffer<T> weight;         // (kTile, block)
        Buffer<T> sums;           // (B, kTile)
    };

    // Padding rows of a tile are computed with too: they must not hold denormal numbers, which are slow.
    Scratch make_scratch() const {
        return {zeros<T>(kTile * kSegments), zeros<T>(kTile * layer_stride_), zeros<T>(kTile * coefficient_stride_),
                zeros<T>(kTile * blocks_.widest()), zeros<T>(s_.images * kTile + 4)};
    }

    void run_tile(const Tile& tile, Scratch& use) {
        const std::int32_t* members = plan_.members.data() + tile.begin;
        const Taps taps = taps_of(tile.group, s_.height, s_.width);
        load_selectors(s_, in_, taps, members, tile.count, layer_stride_, use.shares.data(), use.layer_weights.data());
        kernels_.outer({use.shares.data(), kSegments, use.layer_weights.data(), layer_stride_, tile.count,
                        taps.count + 1, s_.layers, coefficient_stride_},
                       use.coefficients.data());
        std::fill_n(use.sums.data(), s_.images * kTile, T(0));
        const T* segment[kSegments];
        for (Index block = 0; block < blocks_.count(); ++block) {
            const Index kind = blocks_.vectors(block) - 1;
            const Index width = blocks_.width(block);
            const Index rows = round_up(tile.count, kernels_.strip[kind]);
            kernels_.gather({members, tile.count, s_.channels, blocks_.real(block), width},
                            in_.weight + blocks_.first(block), use.weight.data());
            for (Index image = 0; image < s_.images; ++image) {
                const Index offset = image * tokens_.image_stride(block);
                segment[0] = tokens_.global(block) + offset;
                for (Index t = 0; t < taps.count; ++t) segment[1 + t] = tokens_.cell(block, taps.cell[t]) + offset;
                kernels_.forward[kind]({segment, taps.count + 1, s_.layers, rows, use.coefficients.data(),
                                        coefficient_stride_, use.weight.data(), use.sums.data() + image * kTile,
                                        tokens_.image_stride(block)});
            }
        }
        for (Index image = 0; image < s_.images; ++image) {
            T* to = sorted_.data() + image * members_ + tile.begin;
            for (Index i = 0; i < tile.count; ++i) to[i] = use.sums[image * kTile + i];
        }
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const Shape s_;
    const Inputs<T> in_;
    T* const out_;
    const Plan plan_;
    const Index members_;
    const Blocks blocks_;
    const Index layer_stride_, coefficient_stride_;
    PackedTokens<T> tokens_;
    Buffer<T> sorted_;  // (B, members), in the plan's order
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
