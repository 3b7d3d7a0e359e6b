//go:build !purego

#include "textflag.h"

// SHA-256 (FIPS 180-4) of sixteen messages at once: each 32-bit lane of a
// register belongs to another message. Z0 to Z7 are the working variables a to
// h, Z8 to Z23 the last sixteen words of the message schedule, R9 points to
// the round constants.

// One round, section 6.2.2 step 3. h becomes the new a, d the new e.
#define ROUND(a, b, c, d, e, f, g, h, w, k) \
	VPADDD.BCST (k*4)(R9), w, Z24     \
	VPADDD      Z24, h, h             \
	VPRORD      $6, e, Z25            \
	VPRORD      $11, e, Z26           \
	VPRORD      $25, e, Z27           \
	VPTERNLOGD  $0x96, Z25, Z26, Z27  \
	VMOVDQA64   e, Z28                \
	VPTERNLOGD  $0xca, g, f, Z28      \
	VPADDD      Z27, h, h             \
	VPADDD      Z28, h, h             \
	VPADDD      h, d, d               \
	VPRORD      $2, a, Z25            \
	VPRORD      $13, a, Z26           \
	VPRORD      $22, a, Z27           \
	VPTERNLOGD  $0x96, Z25, Z26, Z27  \
	VMOVDQA64   a, Z28                \
	VPTERNLOGD  $0xe8, c, b, Z28      \
	VPADDD      Z27, h, h             \
	VPADDD      Z28, h, h

// Word t+16 of the schedule in the place of word t, section 6.2.2 step 1.
#define SCHEDULE(w0, w1, w9, w14) \
	VPRORD     $7, w1, Z25           \
	VPRORD     $18, w1, Z26          \
	VPSRLD     $3, w1, Z27           \
	VPTERNLOGD $0x96, Z25, Z26, Z27  \
	VPADDD     Z27, w0, w0           \
	VPADDD     w9, w0, w0            \
	VPRORD     $17, w14, Z25         \
	VPRORD     $19, w14, Z26         \
	VPSRLD     $10, w14, Z27         \
	VPTERNLOGD $0x96, Z25, Z26, Z27  \
	VPADDD     Z27, w0, w0

// The block of one message, as big endian words.
#define LOAD(n, z) \
	MOVL      (n*4)(DX), R10    \
	VMOVDQU32 (SI)(R10*1), z    \
	VPSHUFB   Z31, z, z

// Four rows of four words in every 128 bits, transposed.
#define TRANSPOSE4(r0, r1, r2, r3, t0, t1, t2, t3) \
	VPUNPCKLDQ  r1, r0, t0 \
	VPUNPCKHDQ  r1, r0, t1 \
	VPUNPCKLDQ  r3, r2, t2 \
	VPUNPCKHDQ  r3, r2, t3 \
	VPUNPCKLQDQ t2, t0, r0 \
	VPUNPCKHQDQ t2, t0, r1 \
	VPUNPCKLQDQ t3, t1, r2 \
	VPUNPCKHQDQ t3, t1, r3

// Four rows of four 128 bits, transposed.
#define TRANSPOSE128(r0, r1, r2, r3, t0, t1, t2, t3) \
	VSHUFI32X4 $0x88, r1, r0, t0 \
	VSHUFI32X4 $0xdd, r1, r0, t1 \
	VSHUFI32X4 $0x88, r3, r2, t2 \
	VSHUFI32X4 $0xdd, r3, r2, t3 \
	VSHUFI32X4 $0x88, t2, t0, r0 \
	VSHUFI32X4 $0x88, t3, t1, r1 \
	VSHUFI32X4 $0xdd, t2, t0, r2 \
	VSHUFI32X4 $0xdd, t3, t1, r3

// func compress16(state *[8][16]uint32, base *byte, off *[16]uint32, blocks int, which uint32)
// Requires: AVX512F, AVX512BW
TEXT ·compress16(SB), NOSPLIT, $0-36
	MOVQ  state+0(FP), DI
	MOVQ  base+8(FP), SI
	MOVQ  off+16(FP), DX
	MOVQ  blocks+24(FP), CX
	MOVL  which+32(FP), AX
	KMOVW AX, K1

next:
	VBROADCASTI32X4 swap<>(SB), Z31
	LOAD(0, Z8)
	LOAD(1, Z9)
	LOAD(2, Z10)
	LOAD(3, Z11)
	LOAD(4, Z12)
	LOAD(5, Z13)
	LOAD(6, Z14)
	LOAD(7, Z15)
	LOAD(8, Z16)
	LOAD(9, Z17)
	LOAD(10, Z18)
	LOAD(11, Z19)
	LOAD(12, Z20)
	LOAD(13, Z21)
	LOAD(14, Z22)
	LOAD(15, Z23)
	TRANSPOSE4(Z8, Z9, Z10, Z11, Z0, Z1, Z2, Z3)
	TRANSPOSE4(Z12, Z13, Z14, Z15, Z4, Z5, Z6, Z7)
	TRANSPOSE4(Z16, Z17, Z18, Z19, Z24, Z25, Z26, Z27)
	TRANSPOSE4(Z20, Z21, Z22, Z23, Z28, Z29, Z30, Z31)
	TRANSPOSE128(Z8, Z12, Z16, Z20, Z0, Z1, Z2, Z3)
	TRANSPOSE128(Z9, Z13, Z17, Z21, Z4, Z5, Z6, Z7)
	TRANSPOSE128(Z10, Z14, Z18, Z22, Z24, Z25, Z26, Z27)
	TRANSPOSE128(Z11, Z15, Z19, Z23, Z28, Z29, Z30, Z31)

	VMOVDQU32 0(DI), Z0
	VMOVDQU32 64(DI), Z1
	VMOVDQU32 128(DI), Z2
	VMOVDQU32 192(DI), Z3
	VMOVDQU32 256(DI), Z4
	VMOVDQU32 320(DI), Z5
	VMOVDQU32 384(DI), Z6
	VMOVDQU32 448(DI), Z7
	LEAQ      constants<>(SB), R9
	MOVQ      $3, R8

rounds:
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, 0)
	SCHEDULE(Z8, Z9, Z17, Z22)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z9, 1)
	SCHEDULE(Z9, Z10, Z18, Z23)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z10, 2)
	SCHEDULE(Z10, Z11, Z19, Z8)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z11, 3)
	SCHEDULE(Z11, Z12, Z20, Z9)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z12, 4)
	SCHEDULE(Z12, Z13, Z21, Z10)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z13, 5)
	SCHEDULE(Z13, Z14, Z22, Z11)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z14, 6)
	SCHEDULE(Z14, Z15, Z23, Z12)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z15, 7)
	SCHEDULE(Z15, Z16, Z8, Z13)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 8)
	SCHEDULE(Z16, Z17, Z9, Z14)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 9)
	SCHEDULE(Z17, Z18, Z10, Z15)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 10)
	SCHEDULE(Z18, Z19, Z11, Z16)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 11)
	SCHEDULE(Z19, Z20, Z12, Z17)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 12)
	SCHEDULE(Z20, Z21, Z13, Z18)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 13)
	SCHEDULE(Z21, Z22, Z14, Z19)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 14)
	SCHEDULE(Z22, Z23, Z15, Z20)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 15)
	SCHEDULE(Z23, Z8, Z16, Z21)
	ADDQ $64, R9
	DECQ R8
	JNZ  rounds

	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, 0)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z9, 1)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z10, 2)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z11, 3)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z12, 4)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z13, 5)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z14, 6)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z15, 7)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 8)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 9)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 10)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 11)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 12)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 13)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 14)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 15)

	// Section 6.2.2 step 4, of those lanes that have a block.
	VPADDD    0(DI), Z0, Z0
	VPADDD    64(DI), Z1, Z1
	VPADDD    128(DI), Z2, Z2
	VPADDD    192(DI), Z3, Z3
	VPADDD    256(DI), Z4, Z4
	VPADDD    320(DI), Z5, Z5
	VPADDD    384(DI), Z6, Z6
	VPADDD    448(DI), Z7, Z7
	VMOVDQU32 Z0, K1, 0(DI)
	VMOVDQU32 Z1, K1, 64(DI)
	VMOVDQU32 Z2, K1, 128(DI)
	VMOVDQU32 Z3, K1, 192(DI)
	VMOVDQU32 Z4, K1, 256(DI)
	VMOVDQU32 Z5, K1, 320(DI)
	VMOVDQU32 Z6, K1, 384(DI)
	VMOVDQU32 Z7, K1, 448(DI)

	ADDQ $64, SI
	DECQ CX
	JNZ  next
	VZEROUPPER
	RET

// The bytes of each word turned round.
DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

// Section 4.2.2.
DATA constants<>+0(SB)/8, $0x71374491428a2f98
DATA constants<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA constants<>+16(SB)/8, $0x59f111f13956c25b
DATA constants<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA constants<>+32(SB)/8, $0x12835b01d807aa98
DATA constants<>+40(SB)/8, $0x550c7dc3243185be
DATA constants<>+48(SB)/8, $0x80deb1fe72be5d74
DATA constants<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA constants<>+64(SB)/8, $0xefbe4786e49b69c1
DATA constants<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA constants<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA constants<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA constants<>+96(SB)/8, $0xa831c66d983e5152
DATA constants<>+104(SB)/8, $0xbf597fc7b00327c8
DATA constants<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA constants<>+120(SB)/8, $0x1429296706ca6351
DATA constants<>+128(SB)/8, $0x2e1b213827b70a85
DATA constants<>+136(SB)/8, $0x53380d134d2c6dfc
DATA constants<>+144(SB)/8, $0x766a0abb650a7354
DATA constants<>+152(SB)/8, $0x92722c8581c2c92e
DATA constants<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA constants<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA constants<>+176(SB)/8, $0xd6990624d192e819
DATA constants<>+184(SB)/8, $0x106aa070f40e3585
DATA constants<>+192(SB)/8, $0x1e376c0819a4c116
DATA constants<>+200(SB)/8, $0x34b0bcb52748774c
DATA constants<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA constants<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA constants<>+224(SB)/8, $0x78a5636f748f82ee
DATA constants<>+232(SB)/8, $0x8cc7020884c87814
DATA constants<>+240(SB)/8, $0xa4506ceb90befffa
DATA constants<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL constants<>(SB), RODATA|NOPTR, $256
