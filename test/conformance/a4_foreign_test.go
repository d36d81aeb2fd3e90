package conformance

// intact demands that a pod has all that it had, and works.
func intact(s *stage, what string, a attachment, conf object, res result, before picture) {
	s.unchanged(what, before, a)
	for _, address := range res.addresses() {
		if !s.reserved(address, a) {
			s.failf("%s released %v of another container: %v", what, address, s.reservations(network))
		}
	}
	s.quiet("CHECK of another pod after "+what, s.check(a, conf, res))
	s.works(a, res)
}

// delForeignItems are about what DEL must keep its hands off.
var delForeignItems = []item{
	{"A4.41", must, "DEL whose CNI_NETNS is another pod's by now frees its own and leaves that pod alone", func(s *stage) {
		conf := s.dual("1.1.0")
		a, mine := s.attach("a", conf)
		b, theirs := s.attach("b", conf)
		before := snapshot(b.space)
		released(s, a.via(b.netns), conf, mine)
		if now := snapshot(b.space); now != before {
			s.failf("DEL changed the other pod: %s", difference(before, now))
		}
		s.quiet("CHECK of the other pod", s.check(b, conf, theirs))
		s.works(b, theirs)
	}},
	{"A4.41b", must, "DEL without an ADD touches nothing of the pod in CNI_NETNS", func(s *stage) {
		conf := s.dual("1.1.0")
		b, theirs := s.attach("b", conf)
		before := s.look(b)
		stranger := b
		stranger.id = containerID()
		s.del(stranger, conf)
		intact(s, "a stranger's DEL", b, conf, theirs, before)
	}},
	{"A4.41c", must, "DEL whose prevResult lists another pod's interfaces and addresses touches nothing of them", func(s *stage) {
		conf := s.dual("1.1.0")
		b, theirs := s.attach("b", conf)
		before := s.look(b)
		stranger := s.pod("stranger")
		s.quiet("DEL", s.exec("DEL", stranger, with(conf, object{"prevResult": theirs.raw})))
		intact(s, "a stranger's DEL", b, conf, theirs, before)
	}},
	{"A4.41d", must, "DEL of another network touches nothing of the same container's attachment to this one", func(s *stage) {
		conf := s.dual("1.1.0")
		a, res := s.attach("a", conf)
		before := s.look(a)
		s.del(a.named("net1"), with(conf, object{"name": "another"}))
		intact(s, "another network's DEL", a, conf, res, before)
	}},
	{"A4.41e", must, "DEL of one interface touches nothing of a container whose id merely begins alike", func(s *stage) {
		conf := s.dual("1.1.0")
		a := s.pod("a")
		a.id = "pod-1"
		res := s.add(a, conf)
		before := s.look(a)
		for _, id := range []string{"pod", "pod-", "pod-1-", "pod-11", "pod-1.eth0"} {
			b := s.pod("b" + id)
			b.id = id
			s.del(b, conf)
			s.del(b.named("eth"), conf)
		}
		intact(s, "DEL of a similar id", a, conf, res, before)
	}},
	{"A4.42", must, "DEL whose CNI_NETNS is the plugin's own namespace does not touch the host's interface of that name", func(s *stage) {
		conf := s.dual("1.1.0")
		b, theirs := s.attach("b", conf)
		before := s.look(b)
		a := s.pod("a").via(s.node.Path)
		if links(s.node.Namespace)["eth0"] == nil {
			s.failf("the node has no eth0 to begin with")
		}
		s.exec("DEL", a, conf)
		intact(s, "DEL in the host's namespace", b, conf, theirs, before)
	}},
}
