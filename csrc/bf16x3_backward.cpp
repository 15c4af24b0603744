// The backward in bf16x3. For a tile's vertices and one of their taps, with S = T W' as in the forward and
// H[row][v] = share[v] * layer weight[layer][v] * grad[image][v], a row for each image and layer:
//   S gives the gradients of shares and layer weights, H' T those of the weights, H W those of the tokens.
#include "bf16x3_tokens.h"
#include "cell_bands.h"
#include "sorted.h"

namespace brainkit {
namespace {

// Data of a tile's vertices for the two passes.
struct Vertices {
    Vertices(const Shape& s, Index layer_stride)
        : columns(s, layer_stride),
          grad(s.images * kColumns),
          selected(kRowChunk * kColumns),
          high(kRowChunk * kColumns),
          low(kRowChunk * kColumns) {}

    Planes planes() { return {high.data(), low.data()}; }

    Columns columns;
    Buffer<float> grad;      // (B, columns)
    Buffer<float> selected;  // (kRowChunk, columns): H without the shares
    Buffer<Bf16> high, low;  // of H
};

void load_vertices(const Shape& s, const Inputs<float>& in, const Plan& plan, const Sorted<float>& sorted,
                   const Tile& tile, Index columns, Vertices& use) {
    use.columns.load_weights(s, in, plan.members.data() + tile.begin, tile.count, columns);
    use.columns.load_selectors(tile.count, sorted.shares.data() + tile.begin * kSegments,
                               sorted.layer_weights.data() + tile.begin * sorted.layer_stride);
    for (Index image = 0; image < s.images; ++image) {
        float* to = use.grad.data() + image * columns;
        std::copy_n(sorted.grad.data() + image * sorted.members + tile.begin, tile.count, to);
        std::fill(to + tile.count, to + columns, 0.0f);
    }
}

// Rows first .. first + rows - 1 of a cell, then zeros to `padded` rows.
void fill_selected(const Shape& s, Index first, Index rows, Index padded, Vertices& use) {
    const Index columns = use.columns.count();
    for (Index row = 0; row < rows; ++row) {
        const float* layer = use.columns.layer((first + row) % s.layers);
        const float* grad = use.grad.data() + (first + row) / s.layers * columns;
        float* to = use.selected.data() + row * columns;
        for (Index v = 0; v < columns; ++v) to[v] = layer[v] * grad[v];
    }
    std::fill(use.selected.data() + rows * columns, use.selected.data() + padded * columns, 0.0f);
}

class VertexPass {
  public:
    VertexPass(const Shape& shape, const Inputs<float>& inputs, const Plan& plan, const Gradients<float>& out,
               Sorted<float>& sorted)
        : s_(shape),
          in_(inputs),
          plan_(plan),
          out_(out),
          sorted_(sorted),
          rows_(shape.images * shape.layers),
          side_(round_up(shape.channels, kTileSide)),
          bands_(shape,
                 (SplitTokens::cell_size(rows_, shape.channels) + SplitTokens::cell_size(shape.channels, rows_)) * 2 *
                     static_cast<Index>(sizeof(Bf16))),
          by_row_(shape, inputs, bands_, Order::kRows),
          by_channel_(shape, inputs, bands_, Order::kChannels) {}

    void run(int threads) {
        const auto pack = [&](Index band) {
            by_row_.pack(band, threads);
            by_channel_.pack(band, threads);
        };
        for_each_tile(
            plan_, bands_, threads, pack, [&] { return Scratch(s_, sorted_.layer_stride, side_); },
            [&](const Tile& tile, Scratch& use) { run_tile(tile, use); });
    }

  private:
    struct Scratch {
        Scratch(const Shape& s, Index layer_stride, Index side)
            : vertices(s, layer_stride),
              s(kRowChunk * kColumns),
              mixed(kRowChunk * kColumns),
              grad_shares(kSegments * kColumns),
              grad_layers(s.layers * kColumns),
              grad_weight(side * kColumns),
              turned(side * kColumns) {}

        Vertices vertices;
        Buffer<float> s, mixed;     // (kRowChunk, columns)
        Buffer<float> grad_shares;  // (kSegments, columns)
        Buffer<float> grad_layers;  // (L, columns)
        Buffer<float> grad_weight;  // (D padded, columns)
        Buffer<float> turned;       // (columns, D padded)
    };

    void run_tile(const Tile& tile, Scratch& use) {
        const std::int32_t* members = plan_.members.data() + tile.begin;
        const Taps taps = taps_of(tile.group, s_.height, s_.width);
        const Index columns = round_up(tile.count, kTileSide);
        load_selectors(s_, in_, taps, members, tile.count, sorted_.layer_stride,
                       sorted_.shares.data() + tile.begin * kSegments,
                       sorted_.layer_weights.data() + tile.begin * sorted_.layer_stride);
        load_vertices(s_, in_, plan_, sorted_, tile, columns, use.vertices);
        const Planes weights = use.vertices.columns.weights_by_channel();
        std::fill_n(use.grad_shares.data(), kSegments * columns, 0.0f);
        std::fill_n(use.grad_layers.data(), s_.layers * columns, 0.0f);
        std::fill_n(use.grad_weight.data(), side_ * columns, 0.0f);
        for (Index first = 0; first < rows_; first += kRowChunk) {
            run_chunk(taps, first, std::min(kRowChunk, rows_ - first), weights, use);
        }
        kernels_.transpose(use.grad_weight.data(), columns, side_, columns, use.turned.data(), side_);
        kernels_.scatter({members, tile.count, s_.channels, s_.channels, side_}, use.turned.data(), out_.weight);
        for (Index i = 0; i < tile.count; ++i) {
            const Index v = members[i];
            float grad_shares[kSegments] = {};
            for (Index t = 0; t <= taps.count; ++t) grad_shares[t] = use.grad_shares[t * columns + i];
            store_selector_gradients(s_, in_, taps, v, grad_shares, out_);
            for (Index layer = 0; layer < s_.layers; ++layer) {
                out_.layer_weights[v * s_.layers + layer] = use.grad_layers[layer * columns + i];
            }
        }
    }

    void run_chunk(const Taps& taps, Index first, Index rows, const Planes& weights, Scratch& use) {
        const Columns& vertices = use.vertices.columns;
        const Index columns = vertices.count();
        const Index padded = round_up(rows, kTileDepth);
        fill_selected(s_, first, rows, padded, use.vertices);
        std::fill_n(use.mixed.data(), rows * columns, 0.0f);
        for (Index t = 0; t <= taps.count; ++t) {
            const Index slot = t == 0 ? bands_.global_slot() : bands_.slot(taps.cell[t - 1]);
            tiles_.multiply({by_row_.at(slot, first, 0), by_row_.stride(), weights, 2 * columns, use.s.data(), columns,
                             round_up(rows, kTileSide), columns, vertices.depth(), false});
            tiles_.mix({use.s.data(), vertices.share(t), use.vertices.selected.data(), rows, columns, use.mixed.data(),
                        use.grad_shares.data() + t * columns});
            const Planes h = use.vertices.planes();
            tiles_.split_pairs(
                {use.vertices.selected.data(), columns, vertices.share(t), padded, columns, h, 2 * columns});
            tiles_.multiply({by_channel_.at(slot, 0, first), by_channel_.stride(), h, 2 * columns,
                             use.grad_weight.data(), columns, side_, columns, padded, true});
        }
        for (Index row = 0; row < rows; ++row) {
            const Index image = (first + row) / s_.layers;
            const Index layer = (first + row) % s_.layers;
            add_product(use.vertices.grad.data() + image * columns, use.mixed.data() + row * columns, columns,
                        use.grad_layers.data() + layer * columns);
        }
    }

    const Kernels<float>& kernels_ = kernels<float>();
    const Bf16x3Kernels& tiles_ = bf16x3_kernels();
    const Shape s_;
    const Inputs<float> in_;
    const Plan& plan_;
    const Gradients<float> out_;
    Sorted<float>& sorted_;
    const Index rows_;  // of a cell's tokens: B * L
    const Index side_;  // channels, padded
    const Bands bands_;
    SplitTokens by_row_, by_channel_;
};

// An item is some rows of tokens (images and layers) in a band of cells: see TokenPass in token_pass.h.
class TokenPass {
  public:
    TokenPass(const Shape& shape, const Inputs<float>& inputs, const Plan& plan, const Gradients<float>& out,
              const Sorted<float>& sorted, int threads)
        : s_(shape),
          in_(inputs),
          plan_(plan),
          out_(out),
          sorted_(sorted),
          rows_(shape.images * shape.layers),
          side_(round_up(shape.channels, kTileSide)),
          bands_(shape.height, kSlabBytes / std::max<Index>(1, std::min<Index>(rows_, 64) * shape.width * row_bytes())),
          global_(bands_.count() * rows_ * shape.channels) {
        const Index cells = bands_.rows() * s_.width + 1;
        const Index share = (rows_ * bands_.count() + threads - 1) / threads;  // of a thread
        chunk_ = std::min({kRowChunk, kSlabBytes / (cells * row_bytes()), share});
        chunk_ = std::max(kTileSide, chunk_ / kTileSide * kTileSide);
    }

    void run(int threads) {
        const Index chunks = (rows_ + chunk_ - 1) / chunk_;
        const Index slab = (bands_.rows() * s_.width + 1) * chunk_ * side_;
        const auto make_scratch = [&] { return Scratch{Vertices(s_, sorted_.layer_stride), Buffer<float>(slab)}; };
        for_each(chunks * bands_.count(), threads, make_scratch, [&](Index item, Scratch& use) {
            const Index first = item / bands_.count() * chunk_;
            run_item(item % bands_.count(), first, std::min(chunk_, rows_ - first), use);
        });
        sum_bands(s_, global_.data(), bands_.count(), threads, out_.global);
    }

  private:
    static constexpr Index kSlabBytes = 1 << 22;  // bytes of tokens' gradients per thread

    struct Scratch {
        Vertices vertices;
        Buffer<float> slab;  // (1 + rows * W, chunk_, D padded), the global token first
    };

    Index row_bytes() const { return side_ * static_cast<Index>(sizeof(float)); }

    void run_item(Index band, Index first, Index rows, Scratch& use) {
        const Index begin = bands_.begin(band);
        const Index end = bands_.end(band);
        std::fill_n(use.slab.data(), ((end - begin) * s_.width + 1) * chunk_ * side_, 0.0f);
        for_each_tile_of(s_, plan_, begin, end, [&](const Tile& tile, const Taps& taps, Index segment, Index segments) {
            // Vertices are the summed dimension here.
            const Index columns = round_up(tile.count, kTileDepth);
            load_vertices(s_, in_, plan_, sorted_, tile, columns, use.vertices);
            const Planes weights = use.vertices.columns.weights_by_column();
            const Index padded = round_up(rows, kTileSide);
            fill_selected(s_, first, rows, padded, use.vertices);
            const Planes h = use.vertices.planes();
            for (Index t = segment; t < segment + segments; ++t) {
                tiles_.split({use.vertices.selected.data(), columns, use.vertices.columns.share(t), padded, columns, h,
                              columns});
                float* to = use.slab.data() + slab_slot(s_, taps, t, begin) * chunk_ * side_;
                tiles_.multiply(
                    {h, columns, weights, 2 * use.vertices.columns.depth(), to, side_, padded, side_, columns, true});
            }
        });
        unpack(band, first, rows, use);
    }

    void unpack(Index band, Index first, Index rows, const Scratch& use) {
        const Index grid = s_.height * s_.width;
        const Index begin = bands_.begin(band) * s_.width;
        const Index cells = bands_.end(band) * s_.width - begin;
        for (Index row = 0; row < rows; ++row) {
            const float* from = use.slab.data() + row * side_;
            const Index channel = (first + row) * s_.channels;
            for (Index d = 0; d < s_.channels; d += kernels_.lanes) {
                kernels_.transpose(from + chunk_ * side_ + d, chunk_ * side_, cells,
                                   std::min(kernels_.lanes, s_.channels - d), out_.local + (channel + d) * grid + begin,
                                   grid);
            }
            std::copy_n(from, s_.channels, global_.data() + band * rows_ * s_.channels + channel);
        }
    }

    const Kernels<float>& kernels_ = kernels<float>();
    const Bf16x3Kernels& tiles_ = bf16x3_kernels();
    const Shape s_;
    const Inputs<float> in_;
    const Plan& plan_;
    const Gradients<float> out_;
    const Sorted<float>& sorted_;
    const Index rows_;  // of a cell's tokens: B * L
    const Index side_;  // channels, padded
    const CellBands bands_;
    Buffer<float> global_;  // (bands, B, L, D)
    Index chunk_ = 0;       // rows of tokens per item
};

}  // namespace

void factor_readout_backward_bf16x3(const Shape& shape, const Inputs<float>& inputs, const float* grad, int threads,
                                    const Gradients<float>& out) {
    const Plan plan = make_plan(shape, inputs.locations, kColumns, threads);
    Sorted<float> sorted = make_sorted(shape, plan, grad, threads);
    sum_over_images(shape, grad, threads, out.bias);
    VertexPass(shape, inputs, plan, out, sorted).run(threads);
    TokenPass(shape, inputs, plan, out, sorted, threads).run(threads);
    clear_gradients(shape, plan, out);
}

}  // namespace brainkit
