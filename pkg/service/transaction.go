package service

import (
	"strconv"
	"time"

	"sigs.k8s.io/knftables"
)

// transaction collects what is to change in the tables, for one run of nft.
// Equivalent to: `nft -f -`.
type transaction struct {
	*knftables.Transaction
	native   bool // leave out the rules that nft cannot write
	pending  []nativeRule
	elements int // added and deleted
	objects  int // chains and tables written
	// tables that will be there after it
	tables [len(families)]bool
}

// nativeRule is a rule that is written after the transaction, by [remembering].
type nativeRule struct {
	family family
	chain  string
	*remembering
}

func (t *transaction) empty() bool { return t.NumOperations() == 0 }

func (t *transaction) addTable(f family) {
	t.tables[f] = true
	t.objects++
	t.Add(&knftables.Table{Family: f.knftables(), Name: TableName, Comment: knftables.PtrTo("flatnet balances Services here")})
	for id := range numberOfSets {
		t.addSet(f, id)
	}
}

func (t *transaction) addSet(f family, id setID) {
	s := id.schema()
	var flags []knftables.SetFlag
	if s.flags != "" {
		flags = []knftables.SetFlag{knftables.SetFlag(s.flags)}
	}
	var size *uint64
	if s.size > 0 {
		size = &s.size
	}
	var timeout *time.Duration
	if s.timeout > 0 {
		timeout = &s.timeout
	}
	kind := f.declared(s.key)
	if s.isMap() {
		kind += " : " + f.declared(s.value)
	}
	plain, typeof := kind, ""
	if s.kind == "typeof" {
		plain, typeof = "", kind
	}
	if s.isMap() {
		t.Add(&knftables.Map{Family: f.knftables(), Table: TableName, Name: s.name, Type: plain, TypeOf: typeof, Flags: flags, Size: size, Timeout: timeout})
	} else {
		t.Add(&knftables.Set{Family: f.knftables(), Table: TableName, Name: s.name, Type: plain, TypeOf: typeof, Flags: flags, Size: size, Timeout: timeout})
	}
}

func (t *transaction) deleteTable(f family) {
	t.tables[f] = false
	t.objects++
	// Adding first makes deleting one that is not there no error.
	t.Add(&knftables.Table{Family: f.knftables(), Name: TableName})
	t.Delete(&knftables.Table{Family: f.knftables(), Name: TableName})
}

// declareChain makes a chain without rules, unless it is there.
func (t *transaction) declareChain(f family, c chain) {
	t.tables[f] = true
	object := &knftables.Chain{Family: f.knftables(), Table: TableName, Name: c.name}
	if c.hook != "" {
		object.Type = knftables.PtrTo(knftables.NATType)
		object.Hook = knftables.PtrTo(knftables.BaseChainHook(c.hook))
		object.Priority = knftables.PtrTo(knftables.BaseChainPriority(strconv.Itoa(c.priority)))
	}
	t.Add(object)
}

// writeRules gives a chain its rules, and no others.
func (t *transaction) writeRules(f family, c chain) {
	t.tables[f] = true
	t.objects++
	t.Flush(&knftables.Chain{Family: f.knftables(), Table: TableName, Name: c.name})
	for _, r := range c.rules {
		if r.native != nil && t.native {
			t.pending = append(t.pending, nativeRule{f, c.name, r.native})
			continue
		}
		t.Add(&knftables.Rule{Family: f.knftables(), Table: TableName, Chain: c.name, Rule: r.text})
	}
}

func (t *transaction) deleteChain(f family, name string) {
	t.tables[f] = true
	t.objects++
	t.Flush(&knftables.Chain{Family: f.knftables(), Table: TableName, Name: name})
	t.Delete(&knftables.Chain{Family: f.knftables(), Table: TableName, Name: name})
}

func (t *transaction) addElement(f family, e element) {
	t.tables[f] = true
	t.elements++
	object := t.element(f, e.set, e.key)
	object.Value = e.value.text()
	if e.comment != "" {
		object.Comment = &e.comment
	}
	t.Add(object)
}

func (t *transaction) deleteElement(f family, e element) {
	t.tables[f] = true
	t.elements++
	object := t.element(f, e.set, e.key)
	// Elements of maps are known by key alone, but knftables wants both.
	object.Value = e.value.text()
	t.Delete(object)
}

// stamp says whose transaction it is. One that leaves no table has no place for that,
// and will be taken for somebody else's.
func (t *transaction) stamp(s *stamps) {
	for _, f := range families {
		if t.tables[f] {
			t.Add(t.element(f, setStamps, key{index: s.issue()}))
			return
		}
	}
}

func (t *transaction) element(f family, id setID, k key) *knftables.Element {
	s := id.schema()
	object := &knftables.Element{Family: f.knftables(), Table: TableName, Key: s.shape.text(k)}
	if s.isMap() {
		object.Map = s.name
	} else {
		object.Set = s.name
	}
	return object
}

func (t *transaction) flushSet(f family, id setID) {
	t.tables[f] = true
	t.elements++
	s := id.schema()
	if s.isMap() {
		t.Flush(&knftables.Map{Family: f.knftables(), Table: TableName, Name: s.name})
	} else {
		t.Flush(&knftables.Set{Family: f.knftables(), Table: TableName, Name: s.name})
	}
}

func (f family) knftables() knftables.Family { return knftables.Family(f.name()) }
