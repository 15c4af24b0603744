// The forward in bf16x3. For a tile's vertices and one of their taps, S = T W' has a row for each image and layer;
// shares and layer weights then sum the rows in float32.
#include "bf16x3_tokens.h"
#include "sorted.h"

namespace brainkit {
namespace {

class Forward {
  public:
    Forward(const Shape& shape, const Inputs<float>& inputs, int threads)
        : s_(shape),
          in_(inputs),
          rows_(shape.images * shape.layers),
          plan_(make_plan(shape, inputs.locations, kColumns, threads)),
          members_(static_cast<Index>(plan_.members.size())),
          layer_stride_(round_up(shape.layers, kernels<float>().lanes)),
          bands_(shape, SplitTokens::cell_size(rows_, shape.channels) * 2 * static_cast<Index>(sizeof(Bf16))),
          tokens_(shape, inputs, bands_, Order::kRows),
          sorted_(shape.images * members_) {}

    void run(int threads, float* out) {
        for_each_tile(
            plan_, bands_, threads, [&](Index band) { tokens_.pack(band, threads); }, [&] { return make_scratch(); },
            [&](const Tile& tile, Scratch& use) { run_tile(tile, use); });
        unsort(s_, in_, plan_, sorted_.data(), threads, out);
    }

  private:
    struct Scratch {
        Columns columns;
        Buffer<float> shares;         // (kColumns, kSegments)
        Buffer<float> layer_weights;  // (kColumns, layer_stride_)
        Buffer<float> s, mixed;       // (kRowChunk, columns)
        Buffer<float> sums;           // (B, columns)
    };

    Scratch make_scratch() const {
        return {Columns(s_, layer_stride_),
                Buffer<float>(kColumns * kSegments),
                Buffer<float>(kColumns * layer_stride_),
                Buffer<float>(kRowChunk * kColumns),
                Buffer<float>(kRowChunk * kColumns),
                Buffer<float>(s_.images * kColumns)};
    }

    void run_tile(const Tile& tile, Scratch& use) {
        const std::int32_t* members = plan_.members.data() + tile.begin;
        const Taps taps = taps_of(tile.group, s_.height, s_.width);
        const Index columns = round_up(tile.count, kTileSide);
        load_selectors(s_, in_, taps, members, tile.count, layer_stride_, use.shares.data(), use.layer_weights.data());
        use.columns.load_weights(s_, in_, members, tile.count, columns);
        use.columns.load_selectors(tile.count, use.shares.data(), use.layer_weights.data());
        const Planes weights = use.columns.weights_by_channel();
        std::fill_n(use.sums.data(), s_.images * columns, 0.0f);
        for (Index first = 0; first < rows_; first += kRowChunk) {
            const Index rows = std::min(kRowChunk, rows_ - first);
            std::fill_n(use.mixed.data(), rows * columns, 0.0f);
            for (Index t = 0; t <= taps.count; ++t) {
                const Index slot = t == 0 ? bands_.global_slot() : bands_.slot(taps.cell[t - 1]);
                tiles_.multiply({tokens_.at(slot, first, 0), tokens_.stride(), weights, 2 * columns, use.s.data(),
                                 columns, round_up(rows, kTileSide), columns, use.columns.depth(), false});
                tiles_.mix({use.s.data(), use.columns.share(t), nullptr, rows, columns, use.mixed.data(), nullptr});
            }
            for (Index row = 0; row < rows; ++row) {
                const Index image = (first + row) / s_.layers;
                const Index layer = (first + row) % s_.layers;
                add_product(use.columns.layer(layer), use.mixed.data() + row * columns, columns,
                            use.sums.data() + image * columns);
            }
        }
        for (Index image = 0; image < s_.images; ++image) {
            std::copy_n(use.sums.data() + image * columns, tile.count, sorted_.data() + image * members_ + tile.begin);
        }
    }

    const Bf16x3Kernels& tiles_ = bf16x3_kernels();
    const Shape s_;
    const Inputs<float> in_;
    const Index rows_;  // of a cell's tokens: B * L
    const Plan plan_;
    const Index members_, layer_stride_;
    const Bands bands_;
    SplitTokens tokens_;
    Buffer<float> sorted_;  // (B, members), in the plan's order
};

}  // namespace

void factor_readout_forward_bf16x3(const Shape& shape, const Inputs<float>& inputs, int threads, float* out) {
    Forward(shape, inputs, threads).run(threads, out);
}

}  // namespace brainkit
