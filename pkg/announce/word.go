package announce

import (
	"encoding/binary"
	"net"
)

// etherWord is the EtherType of words: the first of those for experiments within one's
// own network (IEEE 802, 9.2.4).
const etherWord = 0x88b5

// word is what a node tells all others on the segment: see [pact].
type word struct {
	node   string
	id     uint64 // of the program that says it, unlike any other's
	number uint64 // counts up with every word
	// unable says that the node has not renewed its Lease for long, as far as it knows.
	unable bool
	// asks is for leave: it has something to go on with.
	asks bool
	// written says that the API server has taken its last renewal all the same.
	written bool
	leaves  []leave
}

// leave is given to the program that has said a word.
type leave struct{ id, number uint64 }

const (
	wordMagic   = "flatnet1"
	flagUnable  = 1
	flagWritten = 2
	flagAsks    = 4
	// wordHead are Ethernet's header, the magic, flags, lengths, id and number.
	wordHead = 14 + len(wordMagic) + 3 + 8 + 8
	// leavesOfWord is how many fit into a frame, with the longest name of a node.
	leavesOfWord = 64
)

// writeWord makes the frames that say a word: more than one where there are many leaves.
func writeWord(own net.HardwareAddr, w word) (frames [][]byte) {
	for left := w.leaves; ; left = left[min(leavesOfWord, len(left)):] {
		some := left[:min(leavesOfWord, len(left))]
		frame := append(append(make([]byte, 0, wordHead+len(w.node)+16*len(some)), broadcast...), own...)
		frame = append(binary.BigEndian.AppendUint16(frame, etherWord), wordMagic...)
		var flags byte
		if w.unable {
			flags |= flagUnable
		}
		if w.written {
			flags |= flagWritten
		}
		if w.asks {
			flags |= flagAsks
		}
		frame = append(frame, flags, byte(len(w.node)), byte(len(some)))
		frame = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(frame, w.id), w.number)
		frame = append(frame, w.node...)
		for _, l := range some {
			frame = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(frame, l.id), l.number)
		}
		if frames = append(frames, frame); len(left) <= leavesOfWord {
			return frames
		}
	}
}

// readWord reads a frame, which may be longer than what it says: Ethernet's are 60 bytes
// at least.
func readWord(frame []byte) (w word, good bool) {
	if len(frame) < wordHead || string(frame[14:14+len(wordMagic)]) != wordMagic {
		return w, false
	}
	rest := frame[14+len(wordMagic):]
	flags, name, leaves := rest[0], int(rest[1]), int(rest[2])
	w.unable, w.written, w.asks = flags&flagUnable != 0, flags&flagWritten != 0, flags&flagAsks != 0
	w.id, w.number = binary.BigEndian.Uint64(rest[3:]), binary.BigEndian.Uint64(rest[11:])
	if rest = rest[19:]; name == 0 || len(rest) < name+16*leaves {
		return w, false
	}
	w.node = string(rest[:name])
	for rest = rest[name:]; leaves > 0; leaves-- {
		w.leaves = append(w.leaves, leave{binary.BigEndian.Uint64(rest), binary.BigEndian.Uint64(rest[8:])})
		rest = rest[16:]
	}
	return w, true
}
