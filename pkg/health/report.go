package health

import "net/netip"

// Report returns what is known of the target at an address.
func (p *Prober) Report(address netip.Addr) (r Report, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, known := p.ways[address]
	if known {
		r = w.report()
	}
	return r, known
}

// State returns the state of the target at an address, and what [Report.FullSize] is.
func (p *Prober) State(address netip.Addr) (s State, fullSize string, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w, known := p.ways[address]
	if known {
		s, fullSize = w.state, w.fullSize
	}
	return s, fullSize, known
}

// Unwell returns all targets to which packets are lost, by peer and address.
func (p *Prober) Unwell() (all []Finding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.unwell {
		all = append(all, Finding{w.Target, w.report()})
	}
	return all
}

// Reached returns the sorts of targets of which one is reached.
func (p *Prober) Reached() map[string]bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := map[string]bool{}
	for _, w := range p.ways {
		if w.state != Unknown && w.state != Lost {
			all[w.Sort] = true
		}
	}
	return all
}

// Counts returns what probes came to.
func (p *Prober) Counts() Counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts
}
