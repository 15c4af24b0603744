// AVX2 with fused multiply-add: 16 registers of 8 floats.
#include "kernels_impl.h"

#if defined(__AVX2__)
#include "vectors_avx2.h"

namespace brainkit {

template <typename T>
const Kernels<T>* avx2_kernels() {
    static const Kernels<T> table = Table<Avx2<T>, 12, 2>::make("avx2");
    return &table;
}

}  // namespace brainkit
#else
namespace brainkit {

template <typename T>
const Kernels<T>* avx2_kernels() {
    return nullptr;
}

}  // namespace brainkit
#endif

namespace brainkit {

template const Kernels<float>* avx2_kernels();
template const Kernels<double>* avx2_kernels();

}  // namespace brainkit
