// SPDX-License-Identifier: Apache-2.0

package storematch_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/operator-store/operator_store_exporter/internal/storematch"
)

// parseStore reads a store written as ADDRESS [status=ADDRESS] [instance=INSTANCE] [id=ID].
func parseStore(text string) storematch.Store {
	words := strings.Split(text, " ")

	s := storematch.Store{Address: words[0]}
	for _, w := range words[1:] {
		switch name, value, _ := strings.Cut(w, "="); name {
		case "status":
			s.StatusAddress = value
		case "instance":
			s.Instance = value
		case "id":
			s.ID = value
		}
	}
	return s
}

// parseTarget reads a target written as JOB INSTANCE [pod=POD] [ns=NAMESPACE] [cluster=CLUSTER]
// [past].
func parseTarget(text string) storematch.Target {
	words := append(strings.Split(text, " "), "") // The instance may be missing.

	t := storematch.Target{Identity: storematch.Identity{Job: words[0], Instance: words[1]}, Live: true}
	for _, w := range words[2:] {
		switch name, value, _ := strings.Cut(w, "="); name {
		case "pod":
			t.Pod = value
		case "ns":
			t.Namespace = value
		case "cluster":
			t.Cluster = value
		case "past":
			t.Live = false
		}
	}
	return t
}

func parseAll[T any](parse func(string) T, texts []string) []T {
	var all []T
	for _, text := range texts {
		all = append(all, parse(text))
	}
	return all
}

// matchedInstance returns the instance of the store's target, noTarget or ambiguous.
func matchedInstance(m storematch.Match) string {
	target, ok := m.Target()
	switch {
	case m.Ambiguous:
		return ambiguous
	case !ok:
		return noTarget
	default:
		return target.Instance
	}
}

func matchedInstances(matches []storematch.Match) []string {
	var instances []string
	for _, m := range matches {
		instances = append(instances, matchedInstance(m))
	}
	return instances
}

// Two pods have the same name, and thus the same instance, in different namespaces. Their targets
// differ in the job only.
func TestMatchPodsInTwoNamespaces(t *testing.T) {
	matches := storematch.MatchStores(
		parseAll(parseStore, []string{pod0, "basic-tikv-0.basic-tikv-peer.other.svc:20160"}),
		parseAll(parseTarget, []string{
			"other-basic-tikv basic-tikv-0 ns=other",
			"ns-basic-tikv basic-tikv-0 ns=ns",
		}))

	for i, want := range []string{"ns-basic-tikv", "other-basic-tikv"} {
		if target, ok := matches[i].Target(); !ok || target.Job != want {
			t.Errorf("%s has the target %v, want one of job %s", matches[i].Store.Address, target, want)
		}
	}
}

func TestMatchTargets(t *testing.T) {
	for _, tc := range []struct {
		name    string
		known   []string
		targets []string
		want    []string // ID ADDRESS INSTANCE for each store.
	}{
		{
			name:    "known and unknown stores",
			known:   []string{"a:20160 id=1", "b:20160 id=4"},
			targets: []string{"j a:20180", "j b:20180", "j c:20180"},
			want:    []string{"1 a:20160 a:20180", "4 b:20160 b:20180", " c:20180 c:20180"},
		}, {
			name:    "TiFlash on the host of a TiKV",
			known:   []string{"a:20160 id=1", "a:3930 id=2"},
			targets: []string{"j a:20180"},
			want:    []string{"1 a:20160 a:20180"},
		}, {
			name:    "TiFlash on the host of an unknown TiKV",
			known:   []string{"a:3930 id=2"},
			targets: []string{"j a:20180"},
			want:    []string{" a:20180 a:20180"},
		}, {
			name:    "pod in two jobs and one is past",
			targets: []string{"j pod-0 past", "k pod-0"},
			want:    []string{" pod-0 pod-0"},
		}, {
			name:    "TiFlash without a target",
			known:   []string{"a:20160 id=1", "f:3930 id=2"},
			targets: []string{"j a:20180"},
			want:    []string{"1 a:20160 a:20180"},
		}, {
			name:    "several stores with the same address",
			known:   []string{"a:20160 id=9", "a:20160 id=10", "a:20160 id=2"},
			targets: []string{"j a:20180"},
			want:    []string{"10 a:20160 a:20180"},
		}, {
			name:    "store has moved",
			known:   []string{"a:20160 id=5", "b:20160 id=5"},
			targets: []string{"j a:20180 past", "j b:20180"},
			want:    []string{"5 a:20160 a:20180", "5 b:20160 b:20180"},
		}, {
			name:    "ambiguous store is replaced by its candidates",
			known:   []string{"h:20160 id=1"},
			targets: []string{"j h:20180", "j h:20181"},
			want:    []string{" h:20180 h:20180", " h:20181 h:20181"},
		}, {
			name:    "no known stores",
			targets: []string{"j b:1", "j a:1"},
			want:    []string{" a:1 a:1", " b:1 b:1"},
		}, {
			name:    "same instance in two jobs",
			targets: []string{"j a:1", "k a:1"},
			want:    []string{" a:1 ?"},
		}, {
			name:    "same instance in two jobs and one is past",
			targets: []string{"j a:1 past", "k a:1"},
			want:    []string{" a:1 a:1"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			known, targets := parseAll(parseStore, tc.known), parseAll(parseTarget, tc.targets)

			var got []string
			for _, m := range storematch.MatchTargets(known, targets) {
				got = append(got, m.Store.ID+" "+m.Store.Address+" "+matchedInstance(m))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// Two TiKVs on one host were matched by their ports. They must keep their targets when other
// TiKVs are added to the host or removed from it.
func TestMatchPreviousTargets(t *testing.T) {
	previous := storematch.MatchStores(
		parseAll(parseStore, []string{"h:20160", "h:20161"}),
		parseAll(parseTarget, []string{"j h:20180", "j h:20181"}))

	for _, tc := range []struct {
		name    string
		stores  []string
		targets []string
		want    []string
	}{
		{
			name:    "no change",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"j h:20180", "j h:20181"},
			want:    []string{"h:20180", "h:20181"},
		}, {
			name:    "third target",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"j h:20180", "j h:20181", "j h:20182"},
			want:    []string{"h:20180", "h:20181"},
		}, {
			name:    "third store and target",
			stores:  []string{"h:20160", "h:20161", "h:20162"},
			targets: []string{"j h:20180", "j h:20181", "j h:20182"},
			want:    []string{"h:20180", "h:20181", "h:20182"},
		}, {
			name:    "third store without a target",
			stores:  []string{"h:20160", "h:20161", "h:20162"},
			targets: []string{"j h:20180", "j h:20181"},
			want:    []string{"h:20180", "h:20181", noTarget},
		}, {
			name:    "target was removed",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"j h:20181"},
			want:    []string{noTarget, "h:20181"},
		}, {
			name:    "other ports",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"j h:1180", "j h:1181"},
			want:    []string{"h:1180", "h:1181"},
		}, {
			name:    "other job",
			stores:  []string{"h:20160", "h:20161"},
			targets: []string{"k h:20180", "k h:20181"},
			want:    []string{"h:20180", "h:20181"},
		}, {
			name:    "status addresses contradict the previous targets",
			stores:  []string{"h:20160 status=h:20181", "h:20161 status=h:20180"},
			targets: []string{"j h:20180", "j h:20181"},
			want:    []string{"h:20181", "h:20180"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stores, targets := parseAll(parseStore, tc.stores), parseAll(parseTarget, tc.targets)
			matches := storematch.MatchStores(stores, targets, previous...)
			if got := matchedInstances(matches); !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}

			for i, m := range matches {
				checkMatch(t, m, stores[i])
			}
		})
	}
}

func TestFillMissingFields(t *testing.T) {
	stores := parseAll(parseStore, []string{"A:20160", "b:20160 id=7 status=b:1", "c:20160 instance=c"})
	known := parseAll(parseStore, []string{
		"a.:20160 id=9 status=old:1", "a:20160 id=10 status=a:1", "b:20160 id=8 status=b:2",
	})

	got := storematch.FillMissingFields(stores, known)

	want := []storematch.Store{
		{Address: "A:20160", ID: "10", StatusAddress: "a:1"},
		{Address: "b:20160", ID: "7", StatusAddress: "b:1"},
		{Address: "c:20160", Instance: "c"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if stores[0].ID != "" {
		t.Error("the argument was changed")
	}
}

// FuzzMatchStores checks that no target is given to two stores, that no store is given a target
// that does not exist, and that the order of the targets makes no difference.
func FuzzMatchStores(f *testing.F) {
	f.Add("tikv-1:20160,tikv-10:20160 instance=x", "tikv tikv-1:20180,tikv x,a x past")
	f.Add("[::1]:1,::1,[::1 status=[::]:3", "a [::1]:2,b [::1],c ::1:3")
	f.Add("h.:1,H:2,h status=h:3", "j h.:3,j h:4 pod=h ns=x")
	f.Add(pod0+","+pod1, "j basic-tikv-0 ns=ns cluster=basic,j basic-tikv-0 past,k 1.2.3.4:5 pod=basic-tikv-1")

	f.Fuzz(func(t *testing.T, storeList, targetList string) {
		stores := parseAll(parseStore, strings.Split(storeList, ","))
		targets := parseAll(parseTarget, strings.Split(targetList, ","))

		matches := storematch.MatchStores(stores, targets)
		if len(matches) != len(stores) {
			t.Fatalf("%d matches for %d stores", len(matches), len(stores))
		}
		checkOwners(t, matches, targets)
		checkOwners(t, storematch.MatchTargets(stores, targets), targets)

		shuffled := slices.Clone(targets)
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(shuffled), func(i, j int) {
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		if again := storematch.MatchStores(stores, shuffled); fmt.Sprint(again) != fmt.Sprint(matches) {
			t.Errorf("got %v for the targets in another order, want %v", again, matches)
		}
	})
}

// checkOwners checks that each matched target exists and belongs to one store.
func checkOwners(t *testing.T, matches []storematch.Match, targets []storematch.Target) {
	t.Helper()

	exists := map[storematch.Identity]bool{}
	for _, target := range targets {
		exists[target.Identity] = true
	}

	owners := map[storematch.Identity]storematch.Store{}
	for _, m := range matches {
		target, ok := m.Target()
		if !ok {
			continue
		}
		if owner, taken := owners[target.Identity]; taken {
			t.Errorf("the stores %v and %v have the same target %v", owner, m.Store, target)
		}
		if !exists[target.Identity] {
			t.Errorf("the store %v has the target %v, which does not exist", m.Store, target)
		}
		owners[target.Identity] = m.Store
	}
}

// BenchmarkMatchStores shows for each kind of deployment that the time per store does not grow
// with the number of stores.
func BenchmarkMatchStores(b *testing.B) {
	for _, deployment := range []struct {
		name   string
		store  func(int) string
		target func(int) string
	}{
		{
			name:   "status",
			store:  func(i int) string { return fmt.Sprintf("host-%d:20160 status=host-%[1]d:20180", i) },
			target: func(i int) string { return fmt.Sprintf("tikv host-%d:20180", i) },
		}, {
			name:   "host",
			store:  func(i int) string { return fmt.Sprintf("host-%d:20160", i) },
			target: func(i int) string { return fmt.Sprintf("tikv host-%d:20180", i) },
		}, {
			name:   "pods",
			store:  func(i int) string { return fmt.Sprintf("basic-tikv-%d.basic-tikv-peer.ns.svc:20160", i) },
			target: func(i int) string { return fmt.Sprintf("tikv basic-tikv-%d ns=ns cluster=basic", i) },
		}, {
			name:   "one host",
			store:  func(i int) string { return fmt.Sprintf("host:%d", 20000+i) },
			target: func(i int) string { return fmt.Sprintf("tikv host:%d", 30000+i) },
		}, {
			name:   "ambiguous",
			store:  func(i int) string { return fmt.Sprintf("host:%d", 20000+i) },
			target: func(i int) string { return fmt.Sprintf("tikv host:%d", 30000+3*i) },
		}, {
			name:   "one pod name",
			store:  func(i int) string { return fmt.Sprintf("pod-0.a%d.example.com:20160", i) },
			target: func(i int) string { return fmt.Sprintf("tikv 10.%d.%d.1:20180 pod=pod-0", i/256, i%256) },
		},
	} {
		for _, n := range []int{50, 500, 5000} {
			var stores []storematch.Store
			var targets []storematch.Target
			for i := range n {
				stores = append(stores, parseStore(deployment.store(i)))
				targets = append(targets, parseTarget(deployment.target(i)))
			}

			b.Run(fmt.Sprintf("%s/stores=%d", deployment.name, n), func(b *testing.B) {
				for b.Loop() {
					storematch.MatchStores(stores, targets)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/store")
			})
		}
	}
}
