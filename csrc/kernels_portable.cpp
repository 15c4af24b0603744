// Plain C++ for every processor and compiler, with the compiler's vector extensions if there are any.
#include <string.h>

#include <cstdint>

#include "kernels_impl.h"

namespace brainkit {
namespace {

template <typename T>
struct Plain {
    using Number = T;
    static constexpr int kLanes = 16 / sizeof(T);  // as in SSE2 and NEON
#if defined(__GNUC__)
    typedef T Vector __attribute__((vector_size(16)));
    typedef T Unaligned __attribute__((vector_size(16), aligned(alignof(T)), may_alias));
    typedef std::int32_t Integers __attribute__((vector_size(16)));

    static BRAINKIT_INLINE Vector zero() { return Vector{}; }
    static BRAINKIT_INLINE Vector fill(T value) { return value - Vector{}; }
    static BRAINKIT_INLINE Vector load(const T* from) { return *reinterpret_cast<const Unaligned*>(from); }
    static BRAINKIT_INLINE void store(T* to, Vector value) { *reinterpret_cast<Unaligned*>(to) = value; }
    static BRAINKIT_INLINE Vector add(Vector a, Vector b) { return a + b; }
    static BRAINKIT_INLINE Vector multiply(Vector a, Vector b) { return a * b; }
    static BRAINKIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return a * b + c; }
    static BRAINKIT_INLINE Vector subtract(Vector a, Vector b) { return a - b; }
    static BRAINKIT_INLINE Vector at_least(Vector a, Vector bound) { return bound > a ? bound : a; }
    static BRAINKIT_INLINE Vector at_most(Vector a, Vector bound) { return bound < a ? bound : a; }
    static BRAINKIT_INLINE Vector reciprocal(Vector a) { return fill(1) / a; }
    static BRAINKIT_INLINE Vector where_negative(Vector a, Vector then, Vector otherwise) {
        return a < zero() ? then : otherwise;
    }
    static BRAINKIT_INLINE Vector exponent_from_low_bits(Vector a) {
        return reinterpret_cast<Vector>(reinterpret_cast<Integers>(a) << 23);
    }
    static BRAINKIT_INLINE T at(Vector a, int lane) { return a[lane]; }
#else
    struct Vector {
        T value[kLanes];
    };

    static BRAINKIT_INLINE Vector zero() { return Vector{}; }
    static BRAINKIT_INLINE Vector fill(T value) {
        Vector a;
        for (int i = 0; i < kLanes; ++i) a.value[i] = value;
        return a;
    }
    static BRAINKIT_INLINE Vector load(const T* from) {
        Vector a;
        for (int i = 0; i < kLanes; ++i) a.value[i] = from[i];
        return a;
    }
    static BRAINKIT_INLINE void store(T* to, Vector a) {
        for (int i = 0; i < kLanes; ++i) to[i] = a.value[i];
    }
    static BRAINKIT_INLINE Vector add(Vector a, Vector b) {
        for (int i = 0; i < kLanes; ++i) a.value[i] += b.value[i];
        return a;
    }
    static BRAINKIT_INLINE Vector multiply(Vector a, Vector b) {
        for (int i = 0; i < kLanes; ++i) a.value[i] *= b.value[i];
        return a;
    }
    static BRAINKIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) {
        for (int i = 0; i < kLanes; ++i) c.value[i] += a.value[i] * b.value[i];
        return c;
    }
    static BRAINKIT_INLINE Vector subtract(Vector a, Vector b) {
        for (int i = 0; i < kLanes; ++i) a.value[i] -= b.value[i];
        return a;
    }
    static BRAINKIT_INLINE Vector at_least(Vector a, Vector bound) {
        for (int i = 0; i < kLanes; ++i) a.value[i] = bound.value[i] > a.value[i] ? bound.value[i] : a.value[i];
        return a;
    }
    static BRAINKIT_INLINE Vector at_most(Vector a, Vector bound) {
        for (int i = 0; i < kLanes; ++i) a.value[i] = bound.value[i] < a.value[i] ? bound.value[i] : a.value[i];
        return a;
    }
    static BRAINKIT_INLINE Vector reciprocal(Vector a) {
        for (int i = 0; i < kLanes; ++i) a.value[i] = T(1) / a.value[i];
        return a;
    }
    static BRAINKIT_INLINE Vector where_negative(Vector a, Vector then, Vector otherwise) {
        for (int i = 0; i < kLanes; ++i) a.value[i] = a.value[i] < 0 ? then.value[i] : otherwise.value[i];
        return a;
    }
    static BRAINKIT_INLINE Vector exponent_from_low_bits(Vector a) {
        for (int i = 0; i < kLanes; ++i) {
            std::uint32_t bits;
            memcpy(&bits, &a.value[i], sizeof bits);
            bits <<= 23;
            memcpy(&a.value[i], &bits, sizeof bits);
        }
        return a;
    }
    static BRAINKIT_INLINE T at(Vector a, int lane) { return a.value[lane]; }
#endif
    static BRAINKIT_INLINE Vector absolute(Vector a) { return where_negative(a, subtract(zero(), a), a); }
    static BRAINKIT_INLINE void stream(T* to, Vector value) { store(to, value); }
    static BRAINKIT_INLINE void end_stream() {}
    static BRAINKIT_INLINE void add_sum4(Vector a, Vector b, Vector c, Vector d, T* out) {
        const Vector all[4] = {a, b, c, d};
        for (int i = 0; i < 4; ++i) {
            T sum = at(all[i], 0);
            for (int lane = 1; lane < kLanes; ++lane) sum += at(all[i], lane);
            out[i] += sum;
        }
    }
    static BRAINKIT_INLINE void transpose(const T* from, Index from_stride, T* to, Index to_stride) {
        transpose_plainly<T, kLanes>(from, from_stride, to, to_stride);
    }
};

#if defined(__aarch64__)
template <typename T>
using PlainTable = Table<Plain<T>, 24, 4>;  // 32 registers
#else
template <typename T>
using PlainTable = Table<Plain<T>, 12, 2>;  // 16
#endif

}  // namespace

template <typename T>
const Kernels<T>* portable_kernels() {
    static const Kernels<T> table = PlainTable<T>::make("portable");
    return &table;
}

template const Kernels<float>* portable_kernels();
template const Kernels<double>* portable_kernels();

}  // namespace brainkit
