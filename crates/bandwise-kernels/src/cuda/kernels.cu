// The elementwise, batch norm and pooling kernels. Compiled at run time by NVRTC, once with T = float and once with
// T = double. Activations are rows of `channels` values; absent tensors come as null.

typedef unsigned long long size;

#define FOR_EACH(i, n) \
    for (size i = blockIdx.x * (size)blockDim.x + threadIdx.x; i < (n); i += (size)gridDim.x * blockDim.x)

extern "C" {

__global__ void relu(const T *x, T *out, size n) {
    FOR_EACH(i, n) { T v = x[i]; out[i] = v <= T(0) ? T(0) : v; }
}

// values where y > 0, else 0
__global__ void mask(const T *y, const T *values, T *out, size n) {
    FOR_EACH(i, n) out[i] = y[i] > T(0) ? values[i] : T(0);
}

__device__ T clamped(T v, T low, T high) { return v < low ? low : (v > high ? high : v); }

__global__ void sign_step(const T *x, const T *gradient, const T *origin, T *out, T step, T epsilon, size n) {
    FOR_EACH(i, n) {
        T g = gradient[i];
        T moved = x[i] + (g > T(0) ? step : (g < T(0) ? -step : T(0)));
        out[i] = clamped(origin[i] + clamped(moved - origin[i], -epsilon, epsilon), T(0), T(1));
    }
}

// Sums over the rows of one split, for 32 channels per block of 32 × 8 threads:
// kind 0: mean and sum of squared differences from it of `a`, shifted by the split's first row;
// kind 1: sums of gradient `a` (behind the ReLU, if `result` is given) and of gradient times normalized `x`.
// partial: [split][2][channels]
__global__ void column_sums(int kind, const T *a, const T *x, const T *result, const T *statistics, double epsilon,
                            double *partial, size rows, size channels, size split_rows) {
    __shared__ double first_sums[8][33], second_sums[8][33];
    size c = blockIdx.x * 32 + threadIdx.x;
    size start = blockIdx.y * split_rows, end = min(start + split_rows, rows);
    double first = 0, second = 0;
    if (c < channels) {
        T shift = kind == 0 ? a[start * channels + c] : statistics[c];
        double inverse = kind == 0 ? 1.0 : rsqrt((double)statistics[channels + c] + epsilon);
        for (size r = start + threadIdx.y; r < end; r += 8) {
            size i = r * channels + c;
            T value = a[i];
            if (kind == 0) {
                value -= shift;
                first += value;
                second += (double)value * value;
            } else {
                if (result && !(result[i] > T(0))) value = T(0);
                first += value;
                second += (double)value * (x[i] - shift) * inverse;
            }
        }
    }
    first_sums[threadIdx.y][threadIdx.x] = first;
    second_sums[threadIdx.y][threadIdx.x] = second;
    __syncthreads();
    if (threadIdx.y == 0 && c < channels) {
        for (int k = 1; k < 8; k++) {
            first += first_sums[k][threadIdx.x];
            second += second_sums[k][threadIdx.x];
        }
        if (kind == 0) {
            double count = end - start;
            second = fmax(second - first * first / count, 0.0);
            first = (double)a[start * channels + c] + first / count;
        }
        partial[(blockIdx.y * 2) * channels + c] = first;
        partial[(blockIdx.y * 2 + 1) * channels + c] = second;
    }
}

// Combines the splits in order: mean and biased variance (kind 0) or the two sums (kind 1), out: [2][channels].
__global__ void combine_splits(int kind, const double *partial, T *out, size rows, size channels, size split_rows,
                               size splits) {
    FOR_EACH(c, channels) {
        double first = 0, second = 0, total = 0;
        for (size s = 0; s < splits; s++) {
            double a = partial[(s * 2) * channels + c], b = partial[(s * 2 + 1) * channels + c];
            if (kind == 0) {
                double count = (double)(min((s + 1) * split_rows, rows) - s * split_rows);
                double difference = a - first, sum = total + count;
                first += difference * count / sum;
                second += b + difference * difference * total * count / sum;
                total = sum;
            } else {
                first += a;
                second += b;
            }
        }
        out[c] = (T)first;
        out[channels + c] = (T)(kind == 0 ? second / total : second);
    }
}

// relu((x − mean) / sqrt(variance + epsilon) · gamma + beta + residual); parameters: [gamma; beta]
__global__ void normalize(const T *x, const T *parameters, const T *statistics, const T *residual, T *out,
                          double epsilon, int rectify, size n, size channels) {
    FOR_EACH(i, n) {
        size c = i % channels;
        T inverse = (T)rsqrt((double)statistics[channels + c] + epsilon);
        T v = (x[i] - statistics[c]) * (inverse * parameters[c]) + parameters[channels + c];
        if (residual) v += residual[i];
        out[i] = rectify && v <= T(0) ? T(0) : v;
    }
}

// The input's gradient; sums: [Σ gradient; Σ gradient · normalized x], or null where statistics are constants.
__global__ void normalize_gradient(const T *x, const T *gradient, const T *result, const T *parameters,
                                   const T *statistics, const T *sums, T *out, double epsilon, size n,
                                   size channels) {
    double rows = (double)(n / channels);
    FOR_EACH(i, n) {
        size c = i % channels;
        T inverse = (T)rsqrt((double)statistics[channels + c] + epsilon);
        T g = gradient[i];
        if (result && !(result[i] > T(0))) g = T(0);
        if (sums) {
            T normal = (x[i] - statistics[c]) * inverse;
            g -= (T)((double)sums[c] / rows) + normal * (T)((double)sums[channels + c] / rows);
        }
        out[i] = g * inverse * parameters[c];
    }
}

struct Windows {
    size batch, in_height, in_width, channels, out_height, out_width, kernel, stride, padding;
};

// Position within its image of the first largest value of every window; NaN counts as largest.
__global__ void argmax(const T *x, unsigned *out, Windows w, size n) {
    FOR_EACH(i, n) {
        size c = i % w.channels, ox = i / w.channels % w.out_width, oy = i / w.channels / w.out_width % w.out_height;
        size image = i / w.channels / w.out_width / w.out_height;
        const T *pixels = x + image * w.in_height * w.in_width * w.channels;
        bool found = false;
        size best = 0;
        for (size ky = 0; ky < w.kernel; ky++) {
            for (size kx = 0; kx < w.kernel; kx++) {
                size y = oy * w.stride + ky - w.padding, z = ox * w.stride + kx - w.padding;
                if (y >= w.in_height || z >= w.in_width) continue;
                size position = (y * w.in_width + z) * w.channels + c;
                T value = pixels[position], so_far = pixels[best];
                if (!found || value > so_far || (isnan(value) && !isnan(so_far))) best = position;
                found = true;
            }
        }
        out[i] = (unsigned)best;
    }
}

__global__ void gather(const T *values, const unsigned *positions, T *out, size image_in, size image_out, size n) {
    FOR_EACH(i, n) out[i] = values[i / image_out * image_in + positions[i]];
}

// The transpose of gather, without atomics: every input pixel looks through the windows that cover it.
__global__ void scatter(const T *gradient, const unsigned *positions, T *out, Windows w, size n) {
    FOR_EACH(i, n) {
        size image_in = w.in_height * w.in_width * w.channels;
        size c = i % w.channels, x = i / w.channels % w.in_width, y = i / w.channels / w.in_width % w.in_height;
        size image = i / image_in, position = i % image_in;
        size top = y + w.padding, left = x + w.padding;
        size oy0 = top < w.kernel ? 0 : (top - w.kernel) / w.stride + 1;
        size ox0 = left < w.kernel ? 0 : (left - w.kernel) / w.stride + 1;
        T sum = 0;
        for (size oy = oy0; oy < w.out_height && oy * w.stride <= top; oy++) {
            for (size ox = ox0; ox < w.out_width && ox * w.stride <= left; ox++) {
                size o = ((image * w.out_height + oy) * w.out_width + ox) * w.channels + c;
                // positions is null for average pooling
                if (!positions) sum += gradient[o] / T(w.kernel * w.kernel);
                else if (positions[o] == position) sum += gradient[o];
            }
        }
        out[i] = sum;
    }
}

__global__ void average(const T *x, T *out, Windows w, size n) {
    FOR_EACH(i, n) {
        size c = i % w.channels, ox = i / w.channels % w.out_width, oy = i / w.channels / w.out_width % w.out_height;
        size image = i / w.channels / w.out_width / w.out_height;
        T sum = 0;
        for (size ky = 0; ky < w.kernel; ky++) {
            for (size kx = 0; kx < w.kernel; kx++) {
                size y = oy * w.stride + ky - w.padding, z = ox * w.stride + kx - w.padding;
                if (y >= w.in_height || z >= w.in_width) continue;
                sum += x[((image * w.in_height + y) * w.in_width + z) * w.channels + c];
            }
        }
        out[i] = sum / T(w.kernel * w.kernel);
    }
}

}
