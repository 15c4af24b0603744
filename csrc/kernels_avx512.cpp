// AVX-512: 32 registers of 16 floats.
#include "kernels_impl.h"

#if defined(__AVX512F__)
#include "vectors_avx2.h"

namespace brainkit {
namespace {

template <typename T>
struct Avx512;

template <>
struct Avx512<float> {
    using Number = float;
    using Vector = __m512;
    static constexpr int kLanes = 16;

    static BRAINKIT_INLINE Vector zero() { return _mm512_setzero_ps(); }
    static BRAINKIT_INLINE Vector fill(float value) { return _mm512_set1_ps(value); }
    static BRAINKIT_INLINE Vector load(const float* from) { return _mm512_loadu_ps(from); }
    static BRAINKIT_INLINE void store(float* to, Vector value) { _mm512_storeu_ps(to, value); }
    static BRAINKIT_INLINE Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
    static BRAINKIT_INLINE Vector multiply(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
    static BRAINKIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
    static BRAINKIT_INLINE Vector subtract(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
    // Where one is a NaN, these two instructions give their second operand.
    static BRAINKIT_INLINE Vector at_least(Vector a, Vector bound) { return _mm512_max_ps(bound, a); }
    static BRAINKIT_INLINE Vector at_most(Vector a, Vector bound) { return _mm512_min_ps(bound, a); }
    static BRAINKIT_INLINE Vector absolute(Vector a) { return _mm512_abs_ps(a); }
    // For positive numbers: 14 bits, doubled by a step of Newton's.
    static BRAINKIT_INLINE Vector reciprocal(Vector a) {
        const Vector r = _mm512_rcp14_ps(a);
        return _mm512_fmadd_ps(r, _mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0f)), r);
    }
    static BRAINKIT_INLINE Vector where_negative(Vector a, Vector then, Vector otherwise) {
        return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_LT_OQ), otherwise, then);
    }
    static BRAINKIT_INLINE Vector exponent_from_low_bits(Vector a) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 23));
    }
    static BRAINKIT_INLINE void stream(float* to, Vector value) { _mm512_stream_ps(to, value); }
    static BRAINKIT_INLINE void end_stream() { _mm_sfence(); }
    static BRAINKIT_INLINE __m256 half(Vector a) {
        return _mm256_add_ps(_mm512_castps512_ps256(a),
                             _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)));
    }
    static BRAINKIT_INLINE void sum4(Vector a, Vector b, Vector c, Vector d, float* out) {
        Avx2<float>::sum4(half(a), half(b), half(c), half(d), out);
    }
};

template <>
struct Avx512<double> {
    using Number = double;
    using Vector = __m512d;
    static constexpr int kLanes = 8;

    static BRAINKIT_INLINE Vector zero() { return _mm512_setzero_pd(); }
    static BRAINKIT_INLINE Vector fill(double value) { return _mm512_set1_pd(value); }
    static BRAINKIT_INLINE Vector load(const double* from) { return _mm512_loadu_pd(from); }
    static BRAINKIT_INLINE void store(double* to, Vector value) { _mm512_storeu_pd(to, value); }
    static BRAINKIT_INLINE Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
    static BRAINKIT_INLINE Vector multiply(Vector a, Vector b) { return _mm512_mul_pd(a, b); }
    static BRAINKIT_INLINE Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
    static BRAINKIT_INLINE void stream(double* to, Vector value) { _mm512_stream_pd(to, value); }
    static BRAINKIT_INLINE void end_stream() { _mm_sfence(); }
    static BRAINKIT_INLINE __m256d half(Vector a) {
        return _mm256_add_pd(_mm512_castpd512_pd256(a), _mm512_extractf64x4_pd(a, 1));
    }
    static BRAINKIT_INLINE void sum4(Vector a, Vector b, Vector c, Vector d, double* out) {
        Avx2<double>::sum4(half(a), half(b), half(c), half(d), out);
    }
};

}  // namespace

template <typename T>
const Kernels<T>* avx512_kernels() {
    static const Kernels<T> table = Table<Avx512<T>, 6, 4>::make("avx512");
    return &table;
}

}  // namespace brainkit
#else
namespace brainkit {

template <typename T>
const Kernels<T>* avx512_kernels() {
    return nullptr;
}

}  // namespace brainkit
#endif

namespace brainkit {

template const Kernels<float>* avx512_kernels();
template const Kernels<double>* avx512_kernels();

}  // namespace brainkit
