package lab

import (
	"context"
	"fmt"
	"time"
)

// Until calls f until it returns nil, ten times a second: for conditions that
// nothing announces. It fails with f's last error.
func Until(ctx context.Context, limit time.Duration, what string, f func() error) error {
	end := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("waiting %s for %s: %w", limit, what, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
