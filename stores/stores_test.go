// SPDX-License-Identifier: Apache-2.0

package stores_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/stores"
)

// Targets and stores are written "job instance" and "address" or "address=instance". What is wanted is the
// target's instance, "" for none, "?" for ambiguous, store by store.
func TestFind(t *testing.T) {
	for _, tc := range []struct {
		name    string
		stores  []string
		targets []string
		want    []string
	}{
		{"other port on the same host", []string{"tikv-1:20160"}, []string{"tikv tikv-1:20180"}, []string{"tikv-1:20180"}},
		{"no prefix of a name", []string{"tikv-1:20160"}, []string{"tikv tikv-10:20180", "tikv tikv-11:20180"}, []string{""}},
		{"no prefix of an address", []string{"10.0.0.1:20160"}, []string{"tikv 10.0.0.10:20180", "tikv 10.0.0.11:20180"}, []string{""}},
		{"no suffix of an address", []string{"0.0.0.1:20160"}, []string{"tikv 10.0.0.0.1:20180"}, []string{""}},
		{"a dot is no wildcard", []string{"10.0.0.1:20160"}, []string{"tikv 10a0b0c1:20180"}, []string{""}},
		{
			"each its own among neighbours",
			[]string{"tikv-1:20160", "tikv-10:20160", "tikv-11:20160"},
			[]string{"tikv tikv-11:20180", "tikv tikv-1:20180", "tikv tikv-10:20180"},
			[]string{"tikv-1:20180", "tikv-10:20180", "tikv-11:20180"},
		},
		{"the address itself", []string{"tikv-1:20160"}, []string{"tikv tikv-1:20160", "tikv tikv-1:20180"}, []string{"tikv-1:20160"}},
		{"a host without a port", []string{"tikv-1"}, []string{"tikv tikv-1:20180"}, []string{"tikv-1:20180"}},
		{"an instance without a port", []string{"tikv-1:20160"}, []string{"tikv tikv-1"}, []string{"tikv-1"}},
		{"letter case", []string{"TiKV-A.Example.com:20160"}, []string{"tikv tikv-a.example.COM:20180"}, []string{"tikv-a.example.COM:20180"}},
		{"trailing dot", []string{"tikv-1.example.com.:20160"}, []string{"tikv tikv-1.example.com:20180"}, []string{"tikv-1.example.com:20180"}},
		{"IPv6 in another spelling", []string{"[2001:db8:0::1]:20160"}, []string{"tikv [2001:DB8::1]:20180"}, []string{"[2001:DB8::1]:20180"}},
		{"IPv6 neighbours", []string{"[2001:db8::1]:20160"}, []string{"tikv [2001:db8::10]:20180"}, []string{""}},
		{"IPv4 in IPv6", []string{"[::ffff:10.0.0.1]:20160"}, []string{"tikv 10.0.0.1:20180"}, []string{"10.0.0.1:20180"}},
		{"two targets on the host", []string{"h:20160"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"?"}},
		{"two stores on the host of one target", []string{"h:20160", "h:20161"}, []string{"tikv h:20180"}, []string{"?", "?"}},
		{"two on either side", []string{"h:20160", "h:20161"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"?", "?"}},
		{"one of two is configured, the other is left", []string{"h:20160=h:20181", "h:20161"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"h:20181", "h:20180"}},
		{"a configured instance that is not there", []string{"h:20160=h:1"}, []string{"tikv h:20180"}, []string{""}},
		{"a configured instance of another host", []string{"h:20160=pod-0"}, []string{"tikv h:20180", "tikv pod-0"}, []string{"pod-0"}},
		{"a configured instance in two jobs", []string{"h:20160=h:20180"}, []string{"a h:20180", "b h:20180"}, []string{"?"}},
		{"the same instance in two jobs", []string{"h:20180"}, []string{"a h:20180", "b h:20180"}, []string{"?"}},
		{"two stores of one instance", []string{"a:1=x", "b:1=x"}, []string{"tikv x"}, []string{"?", "?"}},
		{"no targets", []string{"a:1"}, nil, []string{""}},
		{"no stores", nil, []string{"tikv a:1"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var given []stores.Store
			for _, s := range tc.stores {
				address, instance, _ := strings.Cut(s, "=")
				given = append(given, stores.Store{Address: address, Instance: instance})
			}
			var targets []stores.Target
			for _, s := range tc.targets {
				job, instance, _ := strings.Cut(s, " ")
				targets = append(targets, stores.Target{Job: job, Instance: instance})
			}
			matches := stores.Find(given, targets)
			slices.Reverse(targets)
			if again := stores.Find(given, targets); fmt.Sprint(again) != fmt.Sprint(matches) {
				t.Errorf("in another order of targets: %v, else %v", again, matches)
			}
			var got []string
			for i, m := range matches {
				if m.Store != given[i] {
					t.Errorf("match %d is of %v, want %v", i, m.Store, given[i])
				}
				target, ok := m.Target()
				switch {
				case m.Ambiguous && ok:
					t.Errorf("%v is ambiguous and has a target", m)
				case m.Ambiguous:
					got = append(got, "?")
				default:
					got = append(got, target.Instance)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFromTargets(t *testing.T) {
	matches := stores.FromTargets([]stores.Target{{"b", "y:1"}, {"a", "x:1"}, {"a", "y:1"}, {"a", "x:1"}})
	if len(matches) != 2 {
		t.Fatalf("%d stores, want 2: %v", len(matches), matches)
	}
	if x, ok := matches[0].Target(); !ok || x != (stores.Target{Job: "a", Instance: "x:1"}) || matches[0].Store.Address != "x:1" {
		t.Errorf("x:1 is %v", matches[0])
	}
	if _, ok := matches[1].Target(); ok || !matches[1].Ambiguous || len(matches[1].Candidates) != 2 {
		t.Errorf("y:1, which two jobs have, is %v", matches[1])
	}
}

// Whatever the names, no target is given to two stores.
func FuzzFind(f *testing.F) {
	f.Add("tikv-1:20160,tikv-10:20160=x", "tikv tikv-1:20180,tikv x,a x")
	f.Add("[::1]:1,::1,[::1", "a [::1]:2,b [::1],c ::1:3")
	f.Add("h.:1,H:2,h", "j h.:3")
	f.Fuzz(func(t *testing.T, storeList, targetList string) {
		var given []stores.Store
		for _, s := range strings.Split(storeList, ",") {
			address, instance, _ := strings.Cut(s, "=")
			given = append(given, stores.Store{Address: address, Instance: instance})
		}
		known := map[stores.Target]bool{}
		var targets []stores.Target
		for _, s := range strings.Split(targetList, ",") {
			job, instance, _ := strings.Cut(s, " ")
			targets = append(targets, stores.Target{Job: job, Instance: instance})
			known[targets[len(targets)-1]] = true
		}
		matches := stores.Find(given, targets)
		if len(matches) != len(given) {
			t.Fatalf("%d matches of %d stores", len(matches), len(given))
		}
		owner := map[stores.Target]int{}
		for i, m := range matches {
			target, ok := m.Target()
			if !ok {
				continue
			}
			if other, taken := owner[target]; taken {
				t.Errorf("%v is given to the stores %d and %d", target, other, i)
			}
			if !known[target] {
				t.Errorf("store %d is given %v, which there is not", i, target)
			}
			owner[target] = i
		}
	})
}
