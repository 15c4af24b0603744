// The choice of the instruction set. The kernels' files report what they were compiled for; this file checks what the
// processor and the system support, before any of their code runs.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <immintrin.h>
#include <intrin.h>
#endif

namespace brainkit {
namespace {

enum class Level { kPortable, kAvx2, kAvx512 };

Level processor_level() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Level::kPortable;
    return __builtin_cpu_supports("avx512f") ? Level::kAvx512 : Level::kAvx2;
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
    int leaf1[4], leaf7[4];
    __cpuid(leaf1, 0);
    if (leaf1[0] < 7) return Level::kPortable;
    __cpuidex(leaf1, 1, 0);
    __cpuidex(leaf7, 7, 0);
    const bool saves_state = (leaf1[2] >> 27) & 1, fma = (leaf1[2] >> 12) & 1, avx2 = (leaf7[1] >> 5) & 1;
    if (!saves_state || !fma || !avx2) return Level::kPortable;
    // AVX-512 as MSVC's /arch:AVX512 means it: F, DQ, CD, BW and VL.
    constexpr int kAvx512Bits = (1 << 16) | (1 << 17) | (1 << 28) | (1 << 30) | static_cast<int>(1u << 31);
    const unsigned long long state = _xgetbv(0);
    if ((state & 0x6) != 0x6) return Level::kPortable;
    return (state & 0xe6) == 0xe6 && (leaf7[1] & kAvx512Bits) == kAvx512Bits ? Level::kAvx512 : Level::kAvx2;
#else
    return Level::kPortable;
#endif
}

template <typename T>
const Kernels<T>* choose() {
    const Level level = processor_level();
    const Kernels<T>* avx2 = level >= Level::kAvx2 ? avx2_kernels<T>() : nullptr;
    const Kernels<T>* avx512 = level >= Level::kAvx512 ? avx512_kernels<T>() : nullptr;
    const char* variable = std::getenv("BRAINKIT_CPU");
    const std::string asked = variable == nullptr ? "" : variable;
    if (asked.empty()) return avx512 != nullptr ? avx512 : avx2 != nullptr ? avx2 : portable_kernels<T>();
    if (asked != "portable" && asked != "avx2" && asked != "avx512") {
        throw std::runtime_error("BRAINKIT_CPU must be portable, avx2 or avx512, got '" + asked + "'");
    }
    const Kernels<T>* found = asked == "portable" ? portable_kernels<T>() : asked == "avx2" ? avx2 : avx512;
    if (found == nullptr) throw std::runtime_error("BRAINKIT_CPU must name what this machine has, got '" + asked + "'");
    return found;
}

}  // namespace

template <typename T>
const Kernels<T>& kernels() {
    static const Kernels<T>* const chosen = choose<T>();
    return *chosen;
}

template const Kernels<float>& kernels();
template const Kernels<double>& kernels();

}  // namespace brainkit
