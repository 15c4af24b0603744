#include "kernels.h"
#include "plan.h"
#include "pool.h"
#include "tokens.h"

namespace brainkit {
namespace {

constexpr Index kTilesPerItem = 4;     // tiles a thread takes at a time, as in the forward pass
constexpr Index kPart = 4096;          // vertices a thread takes at a time where it only moves them
constexpr Index kTokenBytes = 16384;   // tokens that the vertex kernel keeps at hand: well inside the first cache
constexpr Index kSlabBytes = 1 << 22;  // gradients of tokens that a thread holds

// Finite vertices, in the plan's order. The gradient comes first; the rest is written by the first pass and read by
// the second.
template <typename T>
struct Sorted {
    Buffer<T> grad;           // (B, members), over D
    Buffer<T> shares;         // (members, kSegments)
    Buffer<T> layer_weights;  // (members, layer_stride)
    Index layer_stride;
};

template <typename T>
Sorted<T> make_sorted(const Shape& s, const Plan& plan, const T* grad, int threads) {
    const Index lanes = kernels<T>().lanes;
    const Index members = static_cast<Index>(plan.members.size());
    const Index stride = round_up(s.layers, lanes);
    // The kernels read whole strips and vectors, and may run over the end.
    Sorted<T> sorted{Buffer<T>(s.images * members + kTile), Buffer<T>(members * kSegments),
                     Buffer<T>(members * stride + lanes), stride};
    std::fill_n(sorted.grad.data() + s.images * members, kTile, T(0));
    std::fill_n(sorted.layer_weights.data() + members * stride, lanes, T(0));
    // Image by image, so that what is read at random stays in the cache.
    const Index parts = (members + kPart - 1) / kPart;
    for_each(s.images * parts, threads, [&](Index item) {
        const T* from = grad + item / parts * s.vertices;
        T* to = sorted.grad.data() + item / parts * members;
        const Index end = std::min(members, (item % parts + 1) * kPart);
        for (Index at = item % parts * kPart; at < end; ++at) {
            to[at] = from[plan.members[at]] / static_cast<T>(s.channels);
        }
    });
    return sorted;
}

template <typename T>
void sum_over_images(const Shape& s, const T* grad, int threads, T* out) {
    for_each((s.vertices + kPart - 1) / kPart, threads, [&](Index part) {
        const Index begin = part * kPart;
        const Index end = std::min(s.vertices, begin + kPart);
        std::fill(out + begin, out + end, T(0));
        for (Index image = 0; image < s.images; ++image) {
            for (Index v = begin; v < end; ++v) out[v] += grad[image * s.vertices + v];
        }
    });
}

// The first pass: everything that belongs to one vertex. With U[v,k,:] = sum_b grad[b,v] T[k,b,:] the gradients of
// the weight and of the coefficients come from one product.
template <typename T>
class VertexPass {
  public:
    VertexPass(const Shape& shape, const Inputs<T>& inputs, const Plan& plan, const Gradients<T>& out,
               Sorted<T>& sorted, int threads)
        : s_(shape),
          in_(inputs),
          plan_(plan),
          out_(out),
          sorted_(sorted),
          blocks_(shape.channels, kernels_.lanes, kernels_.vectors),
          rows_(images_last(shape)),
          stride_(round_up(kSegments * shape.layers + 3, kernels_.lanes)),
          tokens_(pack_tokens(shape, inputs, blocks_, rows_, threads)) {}

    void run(int threads) {
        const Index tiles = static_cast<Index>(plan_.tiles.size());
        auto make_scratch = [&] {
            return Scratch{Buffer<T>(kTile * stride_), Buffer<T>(kTile * stride_), Buffer<T>(kTile * blocks_.widest()),
                           Buffer<T>(kTile * blocks_.widest())};
        };
        for_each((tiles + kTilesPerItem - 1) / kTilesPerItem, threads, make_scratch, [&](Index item, Scratch& use) {
            const Index end = std::min(tiles, (item + 1) * kTilesPerItem);
            for (Index tile = item * kTilesPerItem; tile < end; ++tile) run_tile(plan_.tiles[tile], use);
        });
        for (const std::int32_t v : plan_.not_finite) clear(v);
    }

  private:
    struct Scratch {
        Buffer<T> coefficients;       // (kTile, stride_)
        Buffer<T> grad_coefficients;  // (kTile, stride_)
        Buffer<T> weight;             // (kTile, block)
        Buffer<T> grad_weight;        // (kTile, block)
    };

    void run_tile(const Tile& tile, Scratch& use) {
        const Taps taps = taps_of(tile.group, s_.height, s_.width);
        const Index padded_rows = round_up(tile.count, kernels_.strip);
        load(tile, taps, padded_rows, use);
        VertexStep<T> step{};
        step.images = s_.images;
        step.rows = padded_rows;
        step.grad = sorted_.grad.data() + tile.begin;
        step.grad_stride = static_cast<Index>(plan_.members.size());
        step.coefficient_stride = stride_;
        step.weight = use.weight.data();
        step.grad_weight = use.grad_weight.data();
        for (Index block = 0; block < blocks_.count(); ++block) {
            const Index width = blocks_.width(block);
            const Index first = blocks_.first(block);
            const auto kernel = kernels_.vertices[blocks_.vectors(block) - 1];
            const Index row_bytes = rows_.layer * width * static_cast<Index>(sizeof(T));
            const Index together = std::max<Index>(4, kTokenBytes / std::max<Index>(row_bytes, 1) / 4 * 4);
            const std::int32_t* members = plan_.members.data() + tile.begin;
            gather_weights(in_.weight, s_.channels, blocks_, block, members, tile.count, padded_rows,
                           use.weight.data());
            std::fill_n(use.grad_weight.data(), padded_rows * width, T(0));
            for (Index t = 0; t <= taps.count; ++t) {
                const Index cell = t < taps.count ? taps.cell[t] : s_.height * s_.width;
                const T* segment = tokens_.data() + rows_.count * first + cell * rows_.cell * width;
                for (Index layer = 0; layer < s_.layers; layer += together) {
                    step.tokens = segment + layer * rows_.layer * width;
                    step.terms = std::min(together, s_.layers - layer);
                    step.coefficients = use.coefficients.data() + t * s_.layers + layer;
                    step.grad_coefficients = use.grad_coefficients.data() + t * s_.layers + layer;
                    kernel(step);
                }
            }
            for (Index i = 0; i < tile.count; ++i) {
                std::copy_n(use.grad_weight.data() + i * width, blocks_.real(block),
                            out_.weight + members[i] * s_.channels + first);
            }
        }
        for (Index i = 0; i < tile.count; ++i) finish(tile, taps, i, use);
    }

    void load(const Tile& tile, const Taps& taps, Index padded_rows, Scratch& use) {
        for (Index i = 0; i < tile.count; ++i) {
            const Index place = tile.begin + i;
            const Index v = plan_.members[place];
            T* shares = sorted_.shares.data() + place * kSegments;
            fill_shares(s_, taps, in_.locations + 2 * v, in_.scale[v], shares);
            T* layer_weights = sorted_.layer_weights.data() + place * sorted_.layer_stride;
            std::copy_n(in_.layer_weights + v * s_.layers, s_.layers, layer_weights);
            std::fill(layer_weights + s_.layers, layer_weights + sorted_.layer_stride, T(0));
            T* to = use.coefficients.data() + i * stride_;
            for (Index t = 0; t <= taps.count; ++t) {
                for (Index layer = 0; layer < s_.layers; ++layer) *to++ = shares[t] * layer_weights[layer];
            }
        }
        const Index empty = padded_rows - tile.count;
        std::fill_n(use.coefficients.data() + tile.count * stride_, empty * stride_, T(0));
        std::fill_n(use.grad_coefficients.data(), padded_rows * stride_, T(0));
    }

    // From the gradients of a vertex's coefficients to those of its selectors.
    void finish(const Tile& tile, const Taps& taps, Index i, const Scratch& use) {
        const Index v = plan_.members[tile.begin + i];
        const T* shares = sorted_.shares.data() + (tile.begin + i) * kSegments;
        const T* layer_weights = in_.layer_weights + v * s_.layers;
        const T* grad = use.grad_coefficients.data() + i * stride_;
        T* grad_layers = out_.layer_weights + v * s_.layers;
        std::fill_n(grad_layers, s_.layers, T(0));
        T grad_share[kSegments];
        for (Index t = 0; t <= taps.count; ++t, grad += s_.layers) {
            grad_share[t] = 0;
            for (Index layer = 0; layer < s_.layers; ++layer) {
                grad_share[t] += grad[layer] * layer_weights[layer];
                grad_layers[layer] += grad[layer] * shares[t];
            }
        }
        T grad_scale = grad_share[taps.count];
        T grad_x = 0;
        T grad_y = 0;
        if (taps.count > 0) {
            const Place<T> place = place_of(s_, taps, in_.locations + 2 * v);
            for (Index t = 0; t < taps.count; ++t) {
                const bool right = taps.corner[t] & 1;
                const bool lower = taps.corner[t] >> 1;
                grad_scale -= grad_share[t] * bilinear_weight(place, taps.corner[t]);
                grad_x += (right ? grad_share[t] : -grad_share[t]) * (lower ? place.y : T(1) - place.y);
                grad_y += (lower ? grad_share[t] : -grad_share[t]) * (right ? place.x : T(1) - place.x);
            }
        }
        const T local = T(1) - in_.scale[v];
        out_.scale[v] = grad_scale;
        out_.locations[2 * v] = grad_x * local * static_cast<T>(s_.width) / T(2);
        out_.locations[2 * v + 1] = grad_y * local * static_cast<T>(s_.height) / T(2);
    }

    void clear(Index v) {
        std::fill_n(out_.locations + 2 * v, 2, T(0));
        std::fill_n(out_.layer_weights + v * s_.layers, s_.layers, T(0));
        std::fill_n(out_.weight + v * s_.channels, s_.channels, T(0));
        out_.scale[v] = 0;
        out_.bias[v] = 0;
    }

    const Kernels<T>& kernels_ = kernels<T>();
    const Shape s_;
    const Inputs<T> in_;
    const Plan& plan_;
    const Gradients<T> out_;
    Sorted<T>& sorted_;
    const Blocks blocks_;
    const Rows rows_;
    const Index stride_;
    const Buffer<T> tokens_;
};

// The second pass: tokens. An item owns a block of channels of some images and layers and goes through all vertices in
// the plan's order, so no two threads add to one place, and how the work is cut changes no sum.
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
          images_(std::max<Index>(shape.images, 1)),
          layers_(shape.layers) {
        // Images of one item share the vertices' coefficients and weights, which costs about as much as one image more.
        // But every thread should have its share, and hold no more than it should.
        const Index image_bytes =
            (s_.height * s_.width + 1) * layers_ * blocks_.widest() * static_cast<Index>(sizeof(T));
        const auto cost = [&](Index images) {
            const Index parts = blocks_.count() * ((s_.images + images - 1) / images);
            return (parts + threads - 1) / threads * (images + 1);
        };
        for (Index images = images_; images > 0; --images) {
            if (images_ * image_bytes > kSlabBytes || cost(images) < cost(images_)) images_ = images;
        }
        while (layers_ > 2 * kernels_.strip && items() < threads) layers_ = (layers_ + 1) / 2;
        stride_ = round_up(kSegments * layers_, kernels_.strip) + kernels_.lanes;
    }

    void run(int threads) {
        if (s_.images == 0) return;
        for_each(
            items(), threads, [&] { return make_scratch(); }, [&](Index item, Scratch& use) { run_item(item, use); });
    }

  private:
    struct Scratch {
        Buffer<T> slab;          // (images_, cells + 1, layers_, block)
        Buffer<T> nowhere;       // (block,) where padding is added to
        Buffer<T> coefficients;  // (kTile, stride_)
        Buffer<T> weight;        // (kTile, block)
        Buffer<T> values;        // (kTile, block)
        std::vector<T*> rows;
    };

    // What an item owns.
    struct Part {
        Index block, image, images, layer, layers;
    };

    Index image_parts() const { return (s_.images + images_ - 1) / images_; }
    Index layer_parts() const { return (s_.layers + layers_ - 1) / layers_; }
    Index items() const { return blocks_.count() * image_parts() * layer_parts(); }

    Part part_of(Index item) const {
        const Index layer = item % layer_parts() * layers_;
        const Index image = item / layer_parts() % image_parts() * images_;
        return {item / layer_parts() / image_parts(), image, std::min(images_, s_.images - image), layer,
                std::min(layers_, s_.layers - layer)};
    }

    Scratch make_scratch() const {
        const Index width = blocks_.widest();
        Scratch use{Buffer<T>(images_ * (s_.height * s_.width + 1) * layers_ * width),
                    Buffer<T>(width),
                    Buffer<T>(kTile * stride_ + kernels_.lanes),
                    Buffer<T>(kTile * width),
                    Buffer<T>(kTile * width),
                    std::vector<T*>(static_cast<std::size_t>(round_up(kSegments * layers_, kernels_.strip)))};
        std::fill_n(use.nowhere.data(), width, T(0));
        std::fill_n(use.coefficients.data(), kTile * stride_ + kernels_.lanes, T(0));
        return use;
    }

    void run_item(Index item, Scratch& use) {
        const Part part = part_of(item);
        const Index width = blocks_.width(part.block);
        const Index slab = (s_.height * s_.width + 1) * part.layers * width;  // of one image
        const Index members = static_cast<Index>(plan_.members.size());
        const auto kernel = kernels_.tokens[blocks_.vectors(part.block) - 1];
        std::fill_n(use.slab.data(), part.images * slab, T(0));
        for (const Tile& tile : plan_.tiles) {
            const Taps taps = taps_of(tile.group, s_.height, s_.width);
            const Index terms = (taps.count + 1) * part.layers;
            load(tile, taps, part, use);
            TokenStep<T> step{
                use.weight.data(),       nullptr, use.values.data(), tile.count, round_up(terms, kernels_.strip),
                use.coefficients.data(), stride_, use.rows.data()};
            std::fill(use.rows.begin() + terms, use.rows.end(), use.nowhere.data());
            for (Index image = 0; image < part.images; ++image) {
                T** row = use.rows.data();
                for (Index t = 0; t <= taps.count; ++t) {
                    const Index cell = t < taps.count ? taps.cell[t] : s_.height * s_.width;
                    T* to = use.slab.data() + image * slab + cell * part.layers * width;
                    for (Index layer = 0; layer < part.layers; ++layer, to += width) *row++ = to;
                }
                step.factor = sorted_.grad.data() + (part.image + image) * members + tile.begin;
                kernel(step);
            }
        }
        unpack(part, use);
    }

    void load(const Tile& tile, const Taps& taps, const Part& part, Scratch& use) const {
        kernels_.outer({sorted_.shares.data() + tile.begin * kSegments, kSegments,
                        sorted_.layer_weights.data() + tile.begin * sorted_.layer_stride + part.layer,
                        sorted_.layer_stride, tile.count, taps.count + 1, part.layers, use.coefficients.data(),
                        stride_});
        gather_weights(in_.weight, s_.channels, blocks_, part.block, plan_.members.data() + tile.begin, tile.count,
                       tile.count, use.weight.data());
    }

    void unpack(const Part& part, const Scratch& use) const {
        const Index cells = s_.height * s_.width;
        const Index width = blocks_.width(part.block);
        const Index real = blocks_.real(part.block);
        for (Index image = 0; image < part.images; ++image) {
            for (Index layer = 0; layer < part.layers; ++layer) {
                const T* from = use.slab.data() + (image * (cells + 1) * part.layers + layer) * width;
                const Index row = (part.image + image) * s_.layers + part.layer + layer;
                const Index channel = row * s_.channels + blocks_.first(part.block);
                const Index step = part.layers * width;
                T* to = out_.local + channel * cells;
                for (Index first = 0; first < cells; first += kCells) {
                    const Index end = std::min(cells, first + kCells);
                    for (Index d = 0; d < real; ++d) {
                        for (Index cell = first; cell < end; ++cell) to[d * cells + cell] = from[cell * step + d];
                    }
                }
                std::copy_n(from + cells * step, real, out_.global + channel);
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
    Index images_, layers_;  // that an item owns at most
    Index stride_ = 0;
};

}  // namespace

template <typename T>
void factor_readout_backward(const Shape& shape, const Inputs<T>& inputs, const T* grad, int threads,
                             const Gradients<T>& out) {
    const Plan plan = make_plan(shape, inputs.locations, threads);
    Sorted<T> sorted = make_sorted(shape, plan, grad, threads);
    sum_over_images(shape, grad, threads, out.bias);
    VertexPass<T>(shape, inputs, plan, out, sorted, threads).run(threads);
    TokenPass<T>(shape, inputs, plan, out, sorted, threads).run(threads);
}

template void factor_readout_backward(const Shape&, const Inputs<float>&, const float*, int, const Gradients<float>&);
template void factor_readout_backward(const Shape&, const Inputs<double>&, const double*, int,
                                      const Gradients<double>&);

}  // namespace brainkit
