#include "selectors.h"

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "kernels.h"
#include "plan.h"
#include "pool.h"

namespace brainkit {
namespace {

constexpr Index kRows = 96;          // vertices per tile: their data stays in the L2 cache
constexpr Index kTilesTogether = 4;  // tiles per item in the forward pass
// Weight gradients are summed over the tiles of a part, then over parts. The cut depends on the vertices alone.
constexpr Index kTilesOfPart = 12;
constexpr Index kMostParts = 64;

// A row of hidden units: whole vectors, and an odd number of cache lines, so that a column's rows spread over the whole
// L1 cache.
template <typename T>
Index hidden_stride(Index width) {
    const Index line = 64 / static_cast<Index>(sizeof(T));
    const Index lines = (width + line - 1) / line;
    return (lines + 1 - lines % 2) * line;
}

// Memory that is needed soon, of which every product prefetches a part.
template <typename T>
class Soon {
  public:
    void add(const T* from, Index count) { ranges_[ranges_count_++] = {from, count / kLine}; }

    void hand_to(ProductStep<T>& step, Index strip) {
        constexpr Index kLinesOfStrip = 24;
        const Index strips = step.rows / strip;
        if (strips == 0) return;
        while (next_ < ranges_count_ && ranges_[next_].lines < strips) ++next_;
        if (next_ == ranges_count_) return;
        Range& range = ranges_[next_];
        step.soon = range.at;
        step.soon_lines = std::min(kLinesOfStrip, range.lines / strips);
        range.at += strips * step.soon_lines * kLine;
        range.lines -= strips * step.soon_lines;
    }

  private:
    static constexpr Index kLine = 64 / sizeof(T);
    struct Range {
        const T* at;
        Index lines;
    };
    Range ranges_[2];
    Index ranges_count_ = 0, next_ = 0;
};

// Shared by both passes: sizes, and one network's weights as rows of `stride`, padded with zeros.
template <typename T>
class Networks {
  public:
    Networks(const NetworkShape& shape, const NetworkInputs<T>& inputs, int threads)
        : s(shape),
          in(inputs),
          width(round_up(shape.hidden, kernels.lanes)),
          stride(hidden_stride<T>(width)),
          blocks_(shape.hidden, kernels.lanes, kernels.vectors),
          zeros_(stride) {
        std::fill_n(zeros_.data(), stride, T(0));
        for (Index network = 0; network < kNetworks; ++network) weights_.push_back(room(network));
        for_each(kNetworks, threads, [&](Index network) { fill(network); });
    }

    const T* hidden(Index network) const { return weights_[network].data(); }                  // (F, H)
    const T* second(Index network) const { return hidden(network) + s.features * stride; }     // (H, H), in, out
    const T* second_back(Index network) const { return second(network) + s.hidden * stride; }  // (H, H), out, in
    const T* head(Index network) const { return second_back(network) + s.hidden * stride; }    // (outputs, H)
    const T* hidden_bias(Index network) const { return head(network) + s.outputs(network) * stride; }  // (H,)
    const T* second_bias(Index network) const { return hidden_bias(network) + stride; }                // (H,)
    const T* zeros() const { return zeros_.data(); }

    // All blocks of columns of a product whose other sizes are set; prefetches a part of the memory needed soon.
    void multiply(ProductStep<T> step, Soon<T>* soon = nullptr) const {
        const ProductStep<T> first = step;
        for (Index block = 0; block < blocks_.count(); ++block) {
            const Index column = blocks_.first(block);
            step.right = first.right + column;
            step.start = first.start + column;
            step.out = first.out + column;
            step.soon_lines = 0;
            if (soon != nullptr) soon->hand_to(step, kernels.networks.strip);
            kernels.networks.product[blocks_.vectors(block) - 1](step);
        }
    }

    // Inputs of the first GELU, then of the second, of `count` vertices.
    void first_sums(Index network, Index begin, Index count, T* sums) const {
        multiply({count, s.features, in.features + begin * s.features, s.features, 1, hidden(network), stride,
                  hidden_bias(network), 0, sums, stride, nullptr, 0});
    }
    void second_sums(Index network, Index count, const T* values, T* sums) const {
        multiply({count, s.hidden, values, stride, 1, second(network), stride, second_bias(network), 0, sums, stride,
                  nullptr, 0});
    }

    // Padding may become NaN or infinite with its vertex, and must not reach the outputs.
    void clear_padding(Index count, T* values) const {
        if (width == s.hidden) return;
        for (Index i = 0; i < count; ++i) std::fill(values + i * stride + s.hidden, values + i * stride + width, T(0));
    }

    const Kernels<T>& kernels = brainkit::kernels<T>();
    const NetworkShape s;
    const NetworkInputs<T> in;
    const Index width, stride;  // of a row of hidden units

  private:
    Buffer<T> room(Index network) const {
        return Buffer<T>((s.features + 2 * s.hidden + s.outputs(network) + 2) * stride);
    }

    void fill(Index network) {
        const Index h = s.hidden;
        T* to = weights_[network].data();
        std::fill_n(to, (s.features + 2 * h + s.outputs(network) + 2) * stride, T(0));
        to = transpose(in.hidden_weight + network * h * s.features, h, s.features, to);
        to = transpose(in.second_weight + network * h * h, h, h, to);
        to = copy(in.second_weight + network * h * h, h, to);
        to = copy(in.head[network], s.outputs(network), to);
        to = copy(in.hidden_bias + network * h, 1, to);
        copy(in.second_bias + network * h, 1, to);
    }

    T* copy(const T* from, Index rows, T* to) const {
        for (Index i = 0; i < rows; ++i, to += stride) std::copy_n(from + i * s.hidden, s.hidden, to);
        return to;
    }

    T* transpose(const T* from, Index rows, Index columns, T* to) const {
        for (Index i = 0; i < rows; ++i) {
            for (Index j = 0; j < columns; ++j) to[j * stride + i] = from[i * columns + j];
        }
        return to + columns * stride;
    }

    const Blocks blocks_;
    Buffer<T> zeros_;
    std::vector<Buffer<T>> weights_;
};

// Applies tanh, softmax or sigmoid to a network's last sums (count, outputs). May write up to one vector beyond them.
template <typename T>
void choose(const Kernels<T>& kernels, Index network, Index count, Index outputs, T* sums, T* out) {
    const Index all = count * outputs;
    if (network == 0) {
        kernels.networks.hyperbolic_tangent(sums, all);
        std::copy_n(sums, all, out);
    } else if (network == 1) {
        for (Index i = 0; i < count; ++i) {
            T* row = sums + i * outputs;
            T largest = row[0];
            for (Index o = 1; o < outputs; ++o) largest = row[o] > largest ? row[o] : largest;
            for (Index o = 0; o < outputs; ++o) row[o] -= largest;
        }
        kernels.networks.exponential(sums, all);
        for (Index i = 0; i < count; ++i) {
            const T* row = sums + i * outputs;
            T total = 0;
            for (Index o = 0; o < outputs; ++o) total += row[o];
            for (Index o = 0; o < outputs; ++o) out[i * outputs + o] = row[o] / total;
        }
    } else {
        for (Index i = 0; i < all; ++i) sums[i] = -sums[i];
        kernels.networks.exponential(sums, all);
        for (Index i = 0; i < all; ++i) out[i] = T(1) / (T(1) + sums[i]);
    }
}

// Columns that no kernel writes, if its vectors are shorter than the padding.
template <typename T>
void clear_kept_padding(const NetworkShape& s, Index width, Index count, T* kept) {
    const Index all = kept_width(s.hidden);
    if (kept == nullptr || width == all) return;
    for (Index i = 0; i < count; ++i) std::fill(kept + 2 * i * all + width, kept + (2 * i + 1) * all, T(0));
}

// From gradients of a network's outputs to those of its last sums.
template <typename T>
void choose_back(Index network, Index count, Index outputs, const T* out, const T* grad, T* to) {
    for (Index i = 0; i < count; ++i, out += outputs, grad += outputs, to += outputs) {
        T shared = 0;
        if (network == 1) {
            for (Index o = 0; o < outputs; ++o) shared += grad[o] * out[o];
        }
        for (Index o = 0; o < outputs; ++o) {
            const T own = network == 0 ? T(1) - out[o] * out[o] : network == 1 ? out[o] : out[o] * (T(1) - out[o]);
            to[o] = (grad[o] - shared) * own;
        }
    }
}

template <typename T>
T* kept_rows(const NetworkShape& s, T* kept, Index network, Index layer, Index vertex) {
    return kept + ((network * s.vertices + vertex) * 2 + layer) * kept_width(s.hidden);
}

// One part of the vertices and one network at a time: the sums of its weights' gradients, then, over all parts, theirs.
template <typename T>
class BackwardPass {
  public:
    BackwardPass(const Networks<T>& networks, const T* const (&out)[3], const T* const (&grad)[3], const T* kept)
        : n_(networks),
          s_(networks.s),
          out_(out),
          grad_(grad),
          kept_(kept),
          tiles_((s_.vertices + kRows - 1) / kRows),
          parts_(std::min(kMostParts, (tiles_ + kTilesOfPart - 1) / kTilesOfPart)),
          part_rows_(rows_before(kNetworks)),
          sums_(parts_ * part_rows_ * n_.stride) {}

    void run(int threads, const NetworkGradients<T>& to) {
        for_each(
            parts_ * kNetworks, threads, [&] { return Scratch(s_, n_.stride); },
            [&](Index item, Scratch& use) { run_part(item / kNetworks, item % kNetworks, use); });
        for_each(
            part_rows_, threads, [&] { return Buffer<T>(n_.stride); },
            [&](Index row, Buffer<T>& total) { reduce(row, total.data(), to); });
    }

  private:
    struct Scratch {
        Scratch(const NetworkShape& s, Index stride)
            : first(kRows * stride),
              first_slope(kRows * stride),
              first_grad(kRows * stride),
              second(kRows * stride),
              second_slope(kRows * stride),
              second_grad(kRows * stride),
              head_grad(kRows * std::max<Index>(s.layers, 2)) {}

        Buffer<T> first, first_slope, first_grad;     // (kRows, stride): the units after the first GELU
        Buffer<T> second, second_slope, second_grad;  // and after the second
        Buffer<T> head_grad;                          // (kRows, outputs)
    };

    // Rows of a part: for every network (F, H) of the first weight, (H, H) of the second, the heads, two biases.
    Index rows_of(Index network) const { return s_.features + s_.hidden + s_.outputs(network) + 2; }
    Index rows_before(Index network) const {
        Index rows = 0;
        for (Index i = 0; i < network; ++i) rows += rows_of(i);
        return rows;
    }

    void run_part(Index part, Index network, Scratch& use) {
        T* sums = sums_.data() + (part * part_rows_ + rows_before(network)) * n_.stride;
        std::fill_n(sums, rows_of(network) * n_.stride, T(0));
        const Index end = (part + 1) * tiles_ / parts_;
        for (Index tile = part * tiles_ / parts_; tile < end; ++tile) {
            run_tile(network, tile * kRows, std::min(kRows, s_.vertices - tile * kRows), use, sums);
        }
    }

    void run_tile(Index network, Index begin, Index count, Scratch& use, T* sums) {
        const Index stride = n_.stride;
        const Index outputs = s_.outputs(network);
        T* hidden_sums = sums;
        T* second_sums = hidden_sums + s_.features * stride;
        T* head_sums = second_sums + s_.hidden * stride;
        T* bias_sums = head_sums + outputs * stride;
        T* head_grad = use.head_grad.data();
        const T* features = n_.in.features + begin * s_.features;
        Soon<T> soon;
        if (kept_ != nullptr) {
            const Index next = std::min(kRows, s_.vertices - begin - count);
            soon.add(features, count * s_.features);
            soon.add(kept_rows(s_, kept_, network, 0, begin + count), next * 2 * kept_width(s_.hidden));
        }

        units(network, 0, begin, count, use.first.data(), use.first_slope.data(), nullptr);
        units(network, 1, begin, count, use.second.data(), use.second_slope.data(), use.first.data());
        choose_back(network, count, outputs, out_[network] + begin * outputs, grad_[network] + begin * outputs,
                    head_grad);
        n_.multiply({outputs, count, head_grad, 1, outputs, use.second.data(), stride, head_sums, stride, head_sums,
                     stride, nullptr, 0});
        n_.multiply({count, outputs, head_grad, outputs, 1, n_.head(network), stride, n_.zeros(), 0,
                     use.second_grad.data(), stride, nullptr, 0});
        slope(count, use.second_grad.data(), use.second_slope.data(), bias_sums + stride);
        n_.multiply({s_.hidden, count, use.second_grad.data(), 1, stride, use.first.data(), stride, second_sums, stride,
                     second_sums, stride, nullptr, 0},
                    &soon);
        n_.multiply({count, s_.hidden, use.second_grad.data(), stride, 1, n_.second_back(network), stride, n_.zeros(),
                     0, use.first_grad.data(), stride, nullptr, 0},
                    &soon);
        slope(count, use.first_grad.data(), use.first_slope.data(), bias_sums);
        n_.multiply({s_.features, count, features, 1, s_.features, use.first_grad.data(), stride, hidden_sums, stride,
                     hidden_sums, stride, nullptr, 0},
                    &soon);
    }

    // One layer's units and the slopes of their GELU, from kept inputs, or recomputed from the features or the units
    // below.
    void units(Index network, Index layer, Index begin, Index count, T* values, T* slopes, const T* below) const {
        GeluStep<T> step{count, n_.width, values, n_.stride, values, slopes, n_.stride, nullptr, 0};
        if (kept_ != nullptr) {
            step.sums = kept_rows(s_, kept_, network, layer, begin);
            step.sums_stride = 2 * kept_width(s_.hidden);
        } else if (layer == 0) {
            n_.first_sums(network, begin, count, values);
        } else {
            n_.second_sums(network, count, below, values);
        }
        n_.kernels.networks.gelu(step);
    }

    void slope(Index count, T* grad, const T* slopes, T* sums) const {
        n_.kernels.networks.slope({count, n_.width, grad, slopes, n_.stride, sums});
    }

    // One row, summed over parts in their order, to its gradient.
    void reduce(Index row, T* total, const NetworkGradients<T>& to) const {
        std::fill_n(total, s_.hidden, T(0));
        for (Index part = 0; part < parts_; ++part) {
            const T* from = sums_.data() + (part * part_rows_ + row) * n_.stride;
            for (Index i = 0; i < s_.hidden; ++i) total[i] += from[i];
        }
        Index network = 0;
        for (; row >= rows_of(network); ++network) row -= rows_of(network);
        const Index h = s_.hidden;
        if (row < s_.features) {
            T* weight = to.hidden_weight + network * h * s_.features + row;
            for (Index i = 0; i < h; ++i) weight[i * s_.features] = total[i];
        } else if ((row -= s_.features) < h) {
            std::copy_n(total, h, to.second_weight + (network * h + row) * h);
        } else if ((row -= h) < s_.outputs(network)) {
            std::copy_n(total, h, to.head[network] + row * h);
        } else {
            std::copy_n(total, h, (row == s_.outputs(network) ? to.hidden_bias : to.second_bias) + network * h);
        }
    }

    const Networks<T>& n_;
    const NetworkShape s_;
    const T* const (&out_)[3];
    const T* const (&grad_)[3];
    const T* const kept_;
    const Index tiles_, parts_, part_rows_;
    Buffer<T> sums_;  // (parts_, part_rows_, stride)
};

}  // namespace

template <typename T>
void selector_networks_forward(const NetworkShape& shape, const NetworkInputs<T>& inputs, int threads,
                               T* const (&out)[3], T* kept) {
    const Networks<T> n(shape, inputs, threads);
    struct Scratch {
        Buffer<T> first, second, last;
    };
    const auto make_scratch = [&] {
        return Scratch{Buffer<T>(kRows * n.stride), Buffer<T>(kRows * n.stride),
                       Buffer<T>(round_up(kRows * std::max<Index>(shape.layers, 2), n.kernels.lanes))};
    };
    const auto run_tile = [&](Index network, Index begin, Index count, Scratch& use) {
        const Index outputs = shape.outputs(network);
        T* values[2] = {use.first.data(), use.second.data()};
        for (Index layer = 0; layer < 2; ++layer) {
            if (layer == 0) {
                n.first_sums(network, begin, count, values[0]);
            } else {
                n.second_sums(network, count, values[0], values[1]);
            }
            T* to = kept == nullptr ? nullptr : kept_rows(shape, kept, network, layer, begin);
            n.kernels.networks.gelu({count, n.width, values[layer], n.stride, values[layer], nullptr, n.stride, to,
                                     2 * kept_width(shape.hidden)});
            clear_kept_padding(shape, n.width, count, to);
        }
        n.clear_padding(count, values[1]);
        n.kernels.networks.heads({count, n.width, outputs, values[1], n.head(network), n.stride, use.last.data()});
        choose(n.kernels, network, count, outputs, use.last.data(), out[network] + begin * outputs);
    };
    const Index tiles = (shape.vertices + kRows - 1) / kRows;
    const Index groups = (tiles + kTilesTogether - 1) / kTilesTogether;
    for_each(groups * kNetworks, threads, make_scratch, [&](Index item, Scratch& use) {
        const Index end = std::min(tiles, (item / kNetworks + 1) * kTilesTogether);
        for (Index tile = item / kNetworks * kTilesTogether; tile < end; ++tile) {
            run_tile(item % kNetworks, tile * kRows, std::min(kRows, shape.vertices - tile * kRows), use);
        }
    });
}

template <typename T>
void selector_networks_backward(const NetworkShape& shape, const NetworkInputs<T>& inputs, const T* const (&out)[3],
                                const T* const (&grad)[3], const T* kept, int threads, const NetworkGradients<T>& to) {
    const Networks<T> networks(shape, inputs, threads);
    BackwardPass<T>(networks, out, grad, kept).run(threads, to);
}

template void selector_networks_forward(const NetworkShape&, const NetworkInputs<float>&, int, float* const (&)[3],
                                        float*);
template void selector_networks_forward(const NetworkShape&, const NetworkInputs<double>&, int, double* const (&)[3],
                                        double*);
template void selector_networks_backward(const NetworkShape&, const NetworkInputs<float>&, const float* const (&)[3],
                                         const float* const (&)[3], const float*, int, const NetworkGradients<float>&);
template void selector_networks_backward(const NetworkShape&, const NetworkInputs<double>&, const double* const (&)[3],
                                         const double* const (&)[3], const double*, int,
                                         const NetworkGradients<double>&);

}  // namespace brainkit
