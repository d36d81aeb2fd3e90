package host

import "context"

func (k *Keeper) applySysctls(Needs) []Finding                  { return nil }
func (k *Keeper) applyForward(context.Context, Needs) []Finding { return nil }
func (k *Keeper) applyDropIns(Needs) []Finding                  { return nil }
func (k *Keeper) removeForward(context.Context) error           { return nil }
func (k *Keeper) removeDropIns() error                          { return nil }

// RPFilterAllLoose reports whether net.ipv4.conf.all.rp_filter is 2.
func (k *Keeper) RPFilterAllLoose() (bool, error) { return false, nil }

// Watch calls changed after forwarding or rp_filter changed.
func Watch(ctx context.Context, changed func()) error { <-ctx.Done(); return ctx.Err() }
