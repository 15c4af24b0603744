// The micro-kernels, templates over a type of vector. Each instruction set includes this in a file compiled with its
// own flags. So everything here is local to that file, and the standard library is not used: the linker could share its
// functions between files, and run instructions on processors that lack them.
#pragma once

#include "kernels.h"

#if defined(_MSC_VER)
#define BRAINKIT_INLINE __forceinline
#define BRAINKIT_UNROLL
#elif defined(__clang__)
#define BRAINKIT_INLINE inline __attribute__((always_inline))
#define BRAINKIT_UNROLL _Pragma("unroll")
#else
#define BRAINKIT_INLINE inline __attribute__((always_inline))
#define BRAINKIT_UNROLL _Pragma("GCC unroll 16")
#endif

// Prefetches data needed soon (far: a little later). Optional: some compilers have no such builtin.
#if defined(__GNUC__)
#define BRAINKIT_PREFETCH(address) __builtin_prefetch(address)
#define BRAINKIT_PREFETCH_FAR(address) __builtin_prefetch(address, 0, 2)
#else
#define BRAINKIT_PREFETCH(address) static_cast<void>(address)
#define BRAINKIT_PREFETCH_FAR(address) static_cast<void>(address)
#endif

// Keeps a vector in a register: otherwise the compiler loads it for every use, and loads are as costly as products.
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#define BRAINKIT_KEEP(vector) __asm__("" : "+v"(vector))
#else
#define BRAINKIT_KEEP(vector) static_cast<void>(vector)
#endif

#include "network_kernels_impl.h"

namespace brainkit {
namespace {

// out[i] += sum of the lanes of sums[i], and zeros to whole fours.
template <typename V, int R>
BRAINKIT_INLINE void add_sums(const typename V::Vector* sums, typename V::Number* out) {
    const typename V::Vector zero = V::zero();
    BRAINKIT_UNROLL
    for (int r = 0; r < R; r += 4) {
        V::add_sum4(sums[r], r + 1 < R ? sums[r + 1] : zero, r + 2 < R ? sums[r + 2] : zero,
                    r + 3 < R ? sums[r + 3] : zero, out + r);
    }
}

template <typename V, int R, int C>
BRAINKIT_INLINE void forward_strip(const ForwardStep<typename V::Number>& step, Index row) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    const Index stride = step.coefficient_stride;
    Vector z[R][C];
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) z[r][c] = V::zero();
    }
    const T* coefficient = step.coefficients + row * stride;
    // Every strip prefetches another vector of the next rows.
    const Index ahead = step.ahead + row / R % C * V::kLanes;
    for (Index s = 0; s < step.segments; ++s) {
        const T* tokens = step.segment[s];
        for (Index layer = 0; layer < step.layers; ++layer, tokens += C * V::kLanes, ++coefficient) {
            Vector t[C];
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) {
                t[c] = V::load(tokens + c * V::kLanes);
                BRAINKIT_KEEP(t[c]);
            }
            BRAINKIT_PREFETCH(tokens + ahead);
            BRAINKIT_UNROLL
            for (int r = 0; r < R; ++r) {
                const Vector q = V::fill(coefficient[r * stride]);
                BRAINKIT_UNROLL
                for (int c = 0; c < C; ++c) z[r][c] = V::multiply_add(q, t[c], z[r][c]);
            }
        }
    }
    Vector sums[R];
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        const T* w = step.weight + (row + r) * C * V::kLanes;
        sums[r] = V::multiply(z[r][0], V::load(w));
        BRAINKIT_UNROLL
        for (int c = 1; c < C; ++c) sums[r] = V::multiply_add(z[r][c], V::load(w + c * V::kLanes), sums[r]);
    }
    add_sums<V, R>(sums, step.out + row);
}

template <typename V, int R, int C>
void forward_kernel(const ForwardStep<typename V::Number>& step) {
    Index row = 0;
    for (; row + 2 * R <= step.rows; row += 2 * R) forward_strip<V, 2 * R, C>(step, row);
    if (row < step.rows) forward_strip<V, R, C>(step, row);
}

// Four terms at a time, so that their sums over channels are reduced together. The gradient of the weight stays in
// registers throughout.
template <typename V, int R, int C, bool One>
BRAINKIT_INLINE void vertex_strip(const VertexStep<typename V::Number>& step, Index row) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    const Index stride = step.coefficient_stride;
    const T* weight = step.weight + row * C * V::kLanes;
    T* grad_weight = step.grad_weight + row * C * V::kLanes;
    const Index ahead = step.ahead + row / R % C * V::kLanes;
    Vector grad_w[R][C];
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) grad_w[r][c] = V::load(grad_weight + (r * C + c) * V::kLanes);
    }
    for (Index first = 0; first < step.terms; first += 4) {
        const int terms = step.terms - first < 4 ? static_cast<int>(step.terms - first) : 4;
        Vector sums[R][4];
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            BRAINKIT_UNROLL
            for (int k = 0; k < 4; ++k) sums[r][k] = V::zero();
        }
        for (int k = 0; k < terms; ++k) {
            const T* tokens = step.tokens + (first + k) * C * V::kLanes;
            Vector t[C], u[R][C];
            if constexpr (One) {
                BRAINKIT_UNROLL
                for (int c = 0; c < C; ++c) t[c] = V::load(tokens + c * V::kLanes);
            } else {
                BRAINKIT_UNROLL
                for (int r = 0; r < R; ++r) {
                    BRAINKIT_UNROLL
                    for (int c = 0; c < C; ++c) u[r][c] = V::zero();
                }
                const T* grad = step.grad + row;
                for (Index b = 0; b < step.images; ++b, tokens += step.image_stride, grad += step.grad_stride) {
                    BRAINKIT_UNROLL
                    for (int c = 0; c < C; ++c) {
                        t[c] = V::load(tokens + c * V::kLanes);
                        BRAINKIT_KEEP(t[c]);
                    }
                    BRAINKIT_PREFETCH(tokens + ahead);
                    BRAINKIT_UNROLL
                    for (int r = 0; r < R; ++r) {
                        const Vector q = V::fill(grad[r]);
                        BRAINKIT_UNROLL
                        for (int c = 0; c < C; ++c) u[r][c] = V::multiply_add(q, t[c], u[r][c]);
                    }
                }
            }
            const T* coefficient = step.coefficients + row * stride + first + k;
            BRAINKIT_UNROLL
            for (int r = 0; r < R; ++r) {
                const Vector q = V::fill(coefficient[r * stride]);
                Vector sum;
                BRAINKIT_UNROLL
                for (int c = 0; c < C; ++c) {
                    const Vector value = One ? t[c] : u[r][c];
                    const Vector w = V::load(weight + (r * C + c) * V::kLanes);
                    sum = c == 0 ? V::multiply(value, w) : V::multiply_add(value, w, sum);
                    grad_w[r][c] = V::multiply_add(q, value, grad_w[r][c]);
                }
                sums[r][k] = sum;
            }
        }
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) add_sums<V, 4>(sums[r], step.grad_coefficients + (row + r) * stride + first);
    }
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) V::store(grad_weight + (r * C + c) * V::kLanes, grad_w[r][c]);
    }
}

template <typename V, int R, int C>
void vertex_kernel(const VertexStep<typename V::Number>& step) {
    if (step.grad == nullptr) {
        for (Index row = 0; row < step.rows; row += R) vertex_strip<V, R, C, true>(step, row);
    } else {
        for (Index row = 0; row < step.rows; row += R) vertex_strip<V, R, C, false>(step, row);
    }
}

// The first strip computes the products with the factor, which the others read.
template <typename V, int R, int C, bool First>
BRAINKIT_INLINE void token_strip(const TokenStep<typename V::Number>& step, const typename V::Number* values,
                                 Index term) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    Vector sum[R][C];
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) sum[r][c] = V::zero();
    }
    const T* coefficient = step.coefficients + term;
    for (Index i = 0; i < step.rows; ++i, values += C * V::kLanes, coefficient += step.coefficient_stride) {
        Vector t[C];
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) {
            t[c] = V::load(values + c * V::kLanes);
            if constexpr (First) {
                t[c] = V::multiply(V::fill(step.factor[i]), t[c]);
                V::store(step.scaled + (i * C + c) * V::kLanes, t[c]);
            }
            BRAINKIT_KEEP(t[c]);
        }
        BRAINKIT_UNROLL
        for (int r = 0; r < R; ++r) {
            const Vector q = V::fill(coefficient[r]);
            BRAINKIT_UNROLL
            for (int c = 0; c < C; ++c) sum[r][c] = V::multiply_add(q, t[c], sum[r][c]);
        }
    }
    // The sums of each tile are added to the total: summing in two steps is far more accurate than one long sum.
    BRAINKIT_UNROLL
    for (int r = 0; r < R; ++r) {
        T* out = step.out + step.offsets[term + r];
        BRAINKIT_UNROLL
        for (int c = 0; c < C; ++c) {
            V::store(out + c * V::kLanes, V::add(V::load(out + c * V::kLanes), sum[r][c]));
        }
    }
}

template <typename V, int R, int C>
void token_kernel(const TokenStep<typename V::Number>& step) {
    const typename V::Number* values = step.factor == nullptr ? step.weight : step.scaled;
    Index term = 0;
    if (step.factor != nullptr && 2 * R <= step.terms) {
        token_strip<V, 2 * R, C, true>(step, step.weight, term);
        term += 2 * R;
    } else if (step.factor != nullptr) {
        token_strip<V, R, C, true>(step, step.weight, term);
        term += R;
    }
    for (; term + 2 * R <= step.terms; term += 2 * R) token_strip<V, 2 * R, C, false>(step, values, term);
    if (term < step.terms) token_strip<V, R, C, false>(step, values, term);
}

template <typename V>
void scale_kernel(const ScaleStep<typename V::Number>& step) {
    const typename V::Number* from = step.from;
    typename V::Number* to = step.to;
    for (Index i = 0; i < step.rows; ++i) {
        const typename V::Vector q = V::fill(step.factor[i]);
        for (Index d = 0; d < step.stride; d += V::kLanes, from += V::kLanes, to += V::kLanes) {
            V::store(to, V::multiply(q, V::load(from)));
        }
    }
}

template <typename V>
void outer_kernel(const SelectorStep<typename V::Number>& step, typename V::Number* coefficients) {
    for (Index i = 0; i < step.rows; ++i) {
        const typename V::Number* shares = step.shares + i * step.share_stride;
        const typename V::Number* from = step.layer_weights + i * step.layer_stride;
        typename V::Number* to = coefficients + i * step.coefficient_stride;
        for (Index s = 0; s < step.segments; ++s, to += step.layers) {
            const typename V::Vector q = V::fill(shares[s]);
            for (Index layer = 0; layer < step.layers; layer += V::kLanes) {
                V::store(to + layer, V::multiply(q, V::load(from + layer)));
            }
        }
    }
}

template <typename V>
void outer_backward_kernel(const SelectorStep<typename V::Number>& step, const typename V::Number* grad,
                           typename V::Number* grad_shares, typename V::Number* grad_layers) {
    using T = typename V::Number;
    using Vector = typename V::Vector;
    constexpr int kMost = 8;  // segments, in fours
    for (Index i = 0; i < step.rows; ++i) {
        const T* shares = step.shares + i * step.share_stride;
        Vector sums[kMost];
        for (int s = 0; s < kMost; ++s) sums[s] = V::zero();
        for (Index layer = 0; layer < step.layers; layer += V::kLanes) {
            const T* from = grad + i * step.coefficient_stride + layer;
            const Vector weights = V::load(step.layer_weights + i * step.layer_stride + layer);
            Vector sum = V::zero();
            for (Index s = 0; s < step.segments; ++s, from += step.layers) {
                const Vector g = V::load(from);
                sum = V::multiply_add(V::fill(shares[s]), g, sum);
                sums[s] = V::multiply_add(weights, g, sums[s]);
            }
            V::store(grad_layers + i * step.layer_stride + layer, sum);
        }
        T found[kMost] = {};
        add_sums<V, kMost>(sums, found);
        for (Index s = 0; s < step.segments; ++s) grad_shares[i * step.share_stride + s] = found[s];
    }
}

template <typename V>
BRAINKIT_INLINE void copy(const typename V::Number* from, Index count, typename V::Number* to) {
    Index d = 0;
    for (; d + V::kLanes <= count; d += V::kLanes) V::store(to + d, V::load(from + d));
    for (; d < count; ++d) to[d] = from[d];
}

template <typename V>
void gather_kernel(const Moves& moves, const typename V::Number* from, typename V::Number* to) {
    for (Index i = 0; i < moves.rows; ++i, to += moves.width) {
        copy<V>(from + moves.members[i] * moves.stride, moves.real, to);
        for (Index d = moves.real; d < moves.width; ++d) to[d] = 0;
    }
}

template <typename V>
void scatter_kernel(const Moves& moves, const typename V::Number* from, typename V::Number* to) {
    for (Index i = 0; i < moves.rows; ++i, from += moves.width) {
        copy<V>(from, moves.real, to + moves.members[i] * moves.stride);
    }
}

// For vectors without fast permutations of their lanes.
template <typename T, int N>
BRAINKIT_INLINE void transpose_plainly(const T* from, Index from_stride, T* to, Index to_stride) {
    BRAINKIT_UNROLL
    for (int i = 0; i < N; ++i) {
        BRAINKIT_UNROLL
        for (int j = 0; j < N; ++j) to[j * to_stride + i] = from[i * from_stride + j];
    }
}

template <typename V>
void transpose_kernel(const typename V::Number* from, Index from_stride, Index rows, Index columns,
                      typename V::Number* to, Index to_stride) {
    if (rows < V::kLanes || columns < V::kLanes) {
        for (Index j = 0; j < columns; ++j) {
            for (Index i = 0; i < rows; ++i) to[j * to_stride + i] = from[i * from_stride + j];
        }
        return;
    }
    // If a side is not a multiple of the lanes, the last square overlaps the previous one.
    for (Index i = 0; i < rows; i += V::kLanes) {
        const Index row = i + V::kLanes <= rows ? i : rows - V::kLanes;
        for (Index j = 0; j < columns; j += V::kLanes) {
            const Index column = j + V::kLanes <= columns ? j : columns - V::kLanes;
            V::transpose(from + row * from_stride + column, from_stride, to + column * to_stride + row, to_stride);
        }
    }
}

// Sums for C vectors of channels, over as many rows as fit in Most registers: half of that is a strip.
template <int Most, int C>
constexpr int strip_of() {
    constexpr int rows = Most / C < 12 ? Most / C : 12;
    static_assert(rows % 2 == 0 && kTile % rows == 0, "a tile must hold whole strips");
    return rows / 2;
}

// Most is chosen per instruction set, so that the sums just fit its registers; blocks have up to C vectors.
template <typename V, int Most, int C>
struct Table {
    static_assert(C <= kMaxVectors, "too many vectors in a block");

    template <int N>
    static void fill(Kernels<typename V::Number>& table) {
        constexpr int strip = strip_of<Most, N>();
        table.strip[N - 1] = strip;
        table.forward[N - 1] = forward_kernel<V, strip, N>;
        table.vertices[N - 1] = vertex_kernel<V, strip, N>;
        table.tokens[N - 1] = token_kernel<V, strip, N>;
        if constexpr (N < C) fill<N + 1>(table);
    }

    static Kernels<typename V::Number> make(const char* name) {
        Kernels<typename V::Number> table{};
        table.name = name;
        table.lanes = V::kLanes;
        table.vectors = C;
        table.scale = scale_kernel<V>;
        table.outer = outer_kernel<V>;
        table.outer_backward = outer_backward_kernel<V>;
        table.gather = gather_kernel<V>;
        table.scatter = scatter_kernel<V>;
        table.transpose = transpose_kernel<V>;
        table.networks = network_kernels<V, Most / C, C>();
        fill<1>(table);
        return table;
    }
};

}  // namespace
}  // namespace brainkit
