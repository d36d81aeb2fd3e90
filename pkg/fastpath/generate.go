package fastpath

// The programs are compiled by clang 14, which is Debian 12's: `make generate`. Their objects
// are kept beside the source, so that Go alone builds flatnet, and `make lint` compares
// them with what clang makes of it, in the directory PROGRAMS.

//go:generate go tool bpf2go -output-dir=$PROGRAMS -go-package fastpath -target bpfel,bpfeb -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -Wall -Werror -mcpu=v2" -type key -type way -type flow -type counts -type settings program bpf/flow.c -- -I/usr/include/x86_64-linux-gnu
