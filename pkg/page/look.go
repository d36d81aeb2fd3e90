package page

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

// look keeps what was found out last. It is found out again when somebody asks and it is
// old: while nobody has the page open, no node is asked.
type look struct {
	take func(ctx context.Context) any
	// pause is how long what was found out is good for, at least.
	pause func() time.Duration

	mu   sync.Mutex
	last *seen
}

// seen is a document and when it was taken.
type seen struct {
	text []byte
	tag  string // the same for the same document
	at   time.Time
	good time.Duration
}

// rest is how many times as long as it takes to find out what is found out stays good:
// a slow cluster is not asked all the time.
const rest = 4

// get returns what is known now, and waits where it has to be found out first.
func (l *look) get(ctx context.Context) (*seen, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last != nil && time.Since(l.last.at) < l.last.good {
		return l.last, nil
	}
	begin := time.Now()
	text, err := json.Marshal(l.take(ctx))
	if err != nil {
		return nil, fmt.Errorf("encoding what was found out: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err // who wanted it has gone away, and it may lack something for that
	}
	sum := sha256.Sum256(text)
	now := time.Now()
	took := now.Sub(begin)
	l.last = &seen{text: text, tag: `"` + hex.EncodeToString(sum[:12]) + `"`, at: now, good: max(l.pause(), rest*took)}
	return l.last, nil
}
