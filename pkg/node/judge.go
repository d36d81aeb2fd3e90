package node

// Judge tells which nodes can be joined.
func Judge(self string, nodes []Node) (accepted []Node, refused []Refusal) { return nodes, nil }
