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

// store reads a store written `address`, with status=, instance= and id= behind it where it has them.
func store(s string) storematch.Store {
	words := strings.Split(s, " ")
	st := storematch.Store{Address: words[0]}
	for _, w := range words[1:] {
		switch name, value, _ := strings.Cut(w, "="); name {
		case "status":
			st.StatusAddress = value
		case "instance":
			st.Instance = value
		case "id":
			st.ID = value
		}
	}
	return st
}

// target reads a target written `job instance`, with pod=, ns=, cluster= or gone behind it.
func target(s string) storematch.Target {
	words := strings.Split(s, " ")
	words = append(words, "")
	t := storematch.Target{Identity: storematch.Identity{Job: words[0], Instance: words[1]}, Live: true}
	for _, w := range words[2:] {
		switch name, value, _ := strings.Cut(w, "="); name {
		case "pod":
			t.Pod = value
		case "ns":
			t.Namespace = value
		case "cluster":
			t.Cluster = value
		case "gone":
			t.Live = false
		}
	}
	return t
}

func all[T any](read func(string) T, texts []string) []T {
	var found []T
	for _, s := range texts {
		found = append(found, read(s))
	}
	return found
}

const (
	pod0 = "basic-tikv-0.basic-tikv-peer.ns.svc:20160"
	pod1 = "basic-tikv-1.basic-tikv-peer.ns.svc:20160"
)

// What is wanted is, store by store, the target's instance, "" for none, "?" where nothing decides.
func TestFind(t *testing.T) {
	for _, tc := range []struct {
		name    string
		stores  []string
		targets []string
		want    []string
	}{
		// TiUP and bare TiKV: the same host, another port.
		{"TiUP", []string{"10.0.0.1:20160"}, []string{"tikv 10.0.0.1:20180"}, []string{"10.0.0.1:20180"}},
		{"TiUP, with PD's word", []string{"10.0.0.1:20160 status=10.0.0.1:20180"}, []string{"tikv 10.0.0.1:20180"}, []string{"10.0.0.1:20180"}},
		{"TiUP, three hosts", []string{"10.0.0.1:20160", "10.0.0.2:20160", "10.0.0.3:20160"}, []string{"tikv 10.0.0.3:20180", "tikv 10.0.0.1:20180", "tikv 10.0.0.2:20180"}, []string{"10.0.0.1:20180", "10.0.0.2:20180", "10.0.0.3:20180"}},
		{"no prefix of a name", []string{"tikv-1:20160"}, []string{"tikv tikv-10:20180", "tikv tikv-11:20180"}, []string{""}},
		{"no prefix of an address", []string{"10.0.0.1:20160"}, []string{"tikv 10.0.0.10:20180", "tikv 10.0.0.11:20180"}, []string{""}},
		{"no suffix of an address", []string{"0.0.0.1:20160"}, []string{"tikv 10.0.0.0.1:20180"}, []string{""}},
		{"a dot is no wildcard", []string{"10.0.0.1:20160"}, []string{"tikv 10a0b0c1:20180"}, []string{""}},
		{"each its own among neighbours", []string{"tikv-1:20160", "tikv-10:20160", "tikv-11:20160"}, []string{"tikv tikv-11:20180", "tikv tikv-1:20180", "tikv tikv-10:20180"}, []string{"tikv-1:20180", "tikv-10:20180", "tikv-11:20180"}},
		{"a neighbour that is missing", []string{"tikv-1:20160", "tikv-10:20160"}, []string{"tikv tikv-10:20180"}, []string{"", "tikv-10:20180"}},
		{"ports of the user's own", []string{"h:1234"}, []string{"tikv h:4321"}, []string{"h:4321"}},
		{"several a host, with PD's word", []string{"h:20160 status=h:20181", "h:20161 status=h:20180"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"h:20181", "h:20180"}},
		{"several a host, equal offsets", []string{"h:20160", "h:20161"}, []string{"tikv h:20181", "tikv h:20180"}, []string{"h:20180", "h:20181"}},
		{"several a host, equal offsets far apart", []string{"h:20160", "h:21160", "h:30160"}, []string{"tikv h:30180", "tikv h:20180", "tikv h:21180"}, []string{"h:20180", "h:21180", "h:30180"}},
		{"several a host, equal negative offsets", []string{"h:20181", "h:20180"}, []string{"tikv h:20160", "tikv h:20161"}, []string{"h:20161", "h:20160"}},
		{"several a host, other offsets", []string{"h:20160", "h:20161"}, []string{"tikv h:20180", "tikv h:20190"}, []string{"?", "?"}},
		{"several a host, one target missing", []string{"h:20160", "h:20161", "h:20162"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"?", "?", "?"}},
		{"several a host, one target too many", []string{"h:20160", "h:20161"}, []string{"tikv h:20180", "tikv h:20181", "tikv h:20182"}, []string{"?", "?"}},
		{"several a host, on two hosts", []string{"h:20160", "h:20161", "i:20160", "i:20161"}, []string{"tikv h:20180", "tikv h:20181", "tikv i:20180", "tikv i:20181"}, []string{"h:20180", "h:20181", "i:20180", "i:20181"}},
		{"several a host, offsets of one host do not count for another", []string{"h:20160", "i:20160", "i:20161"}, []string{"tikv h:9", "tikv i:20180", "tikv i:20181"}, []string{"h:9", "i:20180", "i:20181"}},
		{"several a host, one target too many that is gone", []string{"h:20160", "h:20161"}, []string{"tikv h:20180", "tikv h:20181", "tikv h:20182 gone"}, []string{"h:20180", "h:20181"}},
		{"several a host, one of them gone", []string{"h:20160", "h:20161"}, []string{"tikv h:20180 gone", "tikv h:20181"}, []string{"h:20180", "h:20181"}},
		{"several a host, one off by one", []string{"h:20160", "h:20161"}, []string{"tikv h:20181", "tikv h:20182"}, []string{"?", "?"}},
		{"several a host, one off by one that is live", []string{"h:20160", "h:20161"}, []string{"tikv h:20180 gone", "tikv h:20181", "tikv h:20182"}, []string{"?", "?"}},
		{"several a host, an offset of the user's own", []string{"h:1", "h:2"}, []string{"tikv h:101", "tikv h:102"}, []string{"h:101", "h:102"}},
		{"several a host, one without a port", []string{"h", "h:20161"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"?", "?"}},
		{"several a host, equal offsets against PD's word", []string{"h:20160 status=x:20181", "h:20161 status=x:20180"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"h:20181", "h:20180"}},
		{"playground", []string{"127.0.0.1:20160", "127.0.0.1:20161", "127.0.0.1:20162"}, []string{"tikv 127.0.0.1:20180", "tikv 127.0.0.1:20181", "tikv 127.0.0.1:20182"}, []string{"127.0.0.1:20180", "127.0.0.1:20181", "127.0.0.1:20182"}},
		{"playground, with PD's word", []string{"127.0.0.1:20160 status=127.0.0.1:20181", "127.0.0.1:20161 status=127.0.0.1:20180"}, []string{"tikv 127.0.0.1:20180", "tikv 127.0.0.1:20181"}, []string{"127.0.0.1:20181", "127.0.0.1:20180"}},
		{"two targets on the host of one store", []string{"h:20160"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"?"}},
		{"two targets on the host, and PD tells which", []string{"h:20160 status=h:20181"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"h:20181"}},
		{"two targets on the host, and PD tells the port by another name of the host", []string{"h:20160 status=10.0.0.1:20181"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"h:20181"}},
		{"one of two targets is gone, and may still be the store's", []string{"h:20160"}, []string{"tikv h:20180 gone", "tikv h:20181"}, []string{"?"}},
		{"two stores on the host of one target", []string{"h:20160", "h:20161"}, []string{"tikv h:20180"}, []string{"?", "?"}},
		{"two stores on the host of one target, and PD tells whose it is", []string{"h:20160 status=h:20180", "h:20161 status=h:20181"}, []string{"tikv h:20181"}, []string{"", "h:20181"}},
		{"another TiKV on the host than PD tells of", []string{"h:20160 status=h:20180"}, []string{"tikv h:20181"}, []string{""}},

		// PD's word.
		{"a status address at another host", []string{"h:20160 status=m:20180"}, []string{"tikv m:20180", "tikv h:20180"}, []string{"m:20180"}},
		{"an unset status address is everybody's", []string{"a:20160 status=127.0.0.1:20180", "b:20160 status=127.0.0.1:20180"}, []string{"tikv a:20180", "tikv b:20180"}, []string{"a:20180", "b:20180"}},
		{"an unset status address is not the target on loopback", []string{"a:20160 status=127.0.0.1:20180"}, []string{"tikv 127.0.0.1:20180"}, []string{""}},
		{"an unspecified status address", []string{"a:20160 status=0.0.0.0:20180"}, []string{"tikv a:9999"}, []string{"a:9999"}},
		{"an unspecified IPv6 status address", []string{"a:20160 status=[::]:20180"}, []string{"tikv a:20180"}, []string{"a:20180"}},
		{"localhost as a status address", []string{"a:20160 status=localhost:20180"}, []string{"tikv localhost:20180", "tikv a:20180"}, []string{"a:20180"}},
		{"two stores with one status address", []string{"a:20160 status=x:20180", "b:20160 status=x:20180"}, []string{"tikv x:20180"}, []string{"?", "?"}},

		// Spellings.
		{"letter case", []string{"TiKV-A.Example.com:20160"}, []string{"tikv tikv-a.example.COM:20180"}, []string{"tikv-a.example.COM:20180"}},
		{"trailing dot", []string{"tikv-1.example.com.:20160"}, []string{"tikv tikv-1.example.com:20180"}, []string{"tikv-1.example.com:20180"}},
		{"IPv6 in another spelling", []string{"[2001:db8:0::1]:20160"}, []string{"tikv [2001:DB8::1]:20180"}, []string{"[2001:DB8::1]:20180"}},
		{"IPv6 with PD's word", []string{"[2001:db8::1]:20160 status=[2001:db8::1]:20180"}, []string{"tikv [2001:db8::1]:20180"}, []string{"[2001:db8::1]:20180"}},
		{"IPv6 neighbours", []string{"[2001:db8::1]:20160"}, []string{"tikv [2001:db8::10]:20180"}, []string{""}},
		{"IPv6, several a host", []string{"[::1]:20160", "[::1]:20161"}, []string{"tikv [::1]:20181", "tikv [::1]:20180"}, []string{"[::1]:20180", "[::1]:20181"}},
		{"IPv4 in IPv6", []string{"[::ffff:10.0.0.1]:20160"}, []string{"tikv 10.0.0.1:20180"}, []string{"10.0.0.1:20180"}},
		{"a host without a port", []string{"tikv-1"}, []string{"tikv tikv-1:20180"}, []string{"tikv-1:20180"}},
		{"an instance without a port", []string{"tikv-1:20160"}, []string{"tikv tikv-1"}, []string{"tikv-1"}},
		{"a short name and a full one", []string{"tikv-1.example.com:20160"}, []string{"tikv tikv-1:20180"}, []string{""}},

		// Docker compose: container names, and a pushgateway's jobs in the oldest.
		{"compose", []string{"tikv0:20160", "tikv1:20160", "tikv10:20160"}, []string{"tikv tikv0:20180", "tikv tikv1:20180", "tikv tikv10:20180"}, []string{"tikv0:20180", "tikv1:20180", "tikv10:20180"}},
		{"compose by address", []string{"192.168.199.116:20160"}, []string{"tikv 192.168.199.116:20180"}, []string{"192.168.199.116:20180"}},
		{"tidb-docker-compose", []string{"tikv0:20160", "tikv1:20160"}, []string{"tikv_1 tikv0", "tikv_4 tikv1"}, []string{"tikv0", "tikv1"}},
		{"the scraped port is the client's", []string{"tikv-1:20160"}, []string{"tikv tikv-1:20160", "tikv tikv-1:20180"}, []string{"tikv-1:20160"}},

		// TiDB Operator: pods.
		{"operator", []string{pod0, pod1}, []string{"ns-basic-tikv basic-tikv-1 ns=ns cluster=basic", "ns-basic-tikv basic-tikv-0 ns=ns cluster=basic"}, []string{"basic-tikv-0", "basic-tikv-1"}},
		{"operator, with PD's word", []string{pod0 + " status=basic-tikv-0.basic-tikv-peer.ns.svc:20180"}, []string{"ns-basic-tikv basic-tikv-0 ns=ns"}, []string{"basic-tikv-0"}},
		{"operator, no labels but the instance", []string{pod0}, []string{"j basic-tikv-0"}, []string{"basic-tikv-0"}},
		{"operator, no prefix of a pod", []string{pod1}, []string{"j basic-tikv-10", "j basic-tikv-11"}, []string{""}},
		{"operator, the same pod in another namespace", []string{pod0}, []string{"j basic-tikv-0 ns=other"}, []string{""}},
		{"operator, the same pod in two namespaces", []string{pod0, "basic-tikv-0.basic-tikv-peer.other.svc:20160"}, []string{"other-basic-tikv basic-tikv-0 ns=other", "ns-basic-tikv basic-tikv-0 ns=ns"}, []string{"basic-tikv-0", "basic-tikv-0"}},
		{"operator, two namespaces without a label", []string{pod0}, []string{"a basic-tikv-0", "b basic-tikv-0"}, []string{"?"}},
		{"operator, two clusters without a namespace", []string{pod0}, []string{"a basic-tikv-0 cluster=other", "b basic-tikv-0 cluster=basic"}, []string{"basic-tikv-0"}},
		{"operator, the cluster as namespace and name", []string{pod0}, []string{"a basic-tikv-0 cluster=ns-other", "b basic-tikv-0 cluster=ns-basic"}, []string{"basic-tikv-0"}},
		{"operator, a cluster label of another meaning", []string{pod0}, []string{"j basic-tikv-0 ns=ns cluster=eu-west-1"}, []string{"basic-tikv-0"}},
		{"operator, with a cluster domain", []string{"basic-tikv-0.basic-tikv-peer.ns.svc.cluster.local:20160"}, []string{"j basic-tikv-0 ns=ns"}, []string{"basic-tikv-0"}},
		{"operator, the namespace in the address is another than that of one target", []string{pod0}, []string{"a basic-tikv-0 ns=x", "b basic-tikv-0 ns=ns"}, []string{"basic-tikv-0"}},
		{"ServiceMonitor, a pod label", []string{pod0, pod1}, []string{"tikv 10.1.0.7:20180 pod=basic-tikv-1 ns=ns", "tikv 10.1.0.8:20180 pod=basic-tikv-0 ns=ns"}, []string{"10.1.0.8:20180", "10.1.0.7:20180"}},
		{"ServiceMonitor, the pod has moved", []string{pod0}, []string{"tikv 10.1.0.7:20180 pod=basic-tikv-0 ns=ns gone", "tikv 10.1.0.9:20180 pod=basic-tikv-0 ns=ns"}, []string{"10.1.0.9:20180"}},
		{"ServiceMonitor, the pod has moved and is down", []string{pod0}, []string{"tikv 10.1.0.7:20180 pod=basic-tikv-0 ns=ns gone", "tikv 10.1.0.9:20180 pod=basic-tikv-0 ns=ns gone"}, []string{"?"}},
		{"an address is no pod", []string{"10.0.0.1:20160"}, []string{"tikv 10"}, []string{""}},
		{"one pod name in two zones", []string{"tikv-1.a.example.com:20160", "tikv-1.b.example.com:20160"}, []string{"tikv tikv-1"}, []string{"", ""}},
		{"operator, the cluster label names another namespace", []string{pod0}, []string{"j basic-tikv-0 cluster=other-basic"}, []string{""}},
		{"operator, a pod of the past in the own namespace and a live one in another", []string{"basic-tikv-0:20160"}, []string{"a basic-tikv-0 ns=a gone", "b basic-tikv-0 ns=b"}, []string{"?"}},

		// Configured instances.
		{"one of two is configured, the other is left", []string{"h:20160 instance=h:20181", "h:20161"}, []string{"tikv h:20180", "tikv h:20181"}, []string{"h:20181", "h:20180"}},
		{"a configured instance that is not there", []string{"h:20160 instance=h:1"}, []string{"tikv h:20180"}, []string{""}},
		{"a configured instance of another host", []string{"h:20160 instance=pod-0"}, []string{"tikv h:20180", "tikv pod-0"}, []string{"pod-0"}},
		{"a configured instance against PD's word", []string{"h:20160 instance=x status=h:20180"}, []string{"tikv h:20180", "tikv x"}, []string{"x"}},
		{"a configured instance is exact", []string{"h:20160 instance=X"}, []string{"tikv x"}, []string{""}},
		{"a configured instance in two jobs", []string{"h:20160 instance=h:20180"}, []string{"a h:20180", "b h:20180"}, []string{"?"}},
		{"a configured instance in two jobs, one of the past", []string{"h:20160 instance=h:20180"}, []string{"a h:20180 gone", "b h:20180"}, []string{"h:20180"}},
		{"two stores of one instance", []string{"a:1 instance=x", "b:1 instance=x"}, []string{"tikv x"}, []string{"?", "?"}},

		// Jobs.
		{"the same instance in two jobs", []string{"h:20180"}, []string{"a h:20180", "b h:20180"}, []string{"?"}},
		{"the same host in two jobs", []string{"h:20160"}, []string{"a h:20180", "b h:20180"}, []string{"?"}},
		{"the same instance in two jobs, one of the past", []string{"h:20160 status=h:20180"}, []string{"a h:20180", "b h:20180 gone"}, []string{"h:20180"}},

		// A store that moves or is replaced.
		{"the same host in two jobs, one of the past", []string{"h:20160"}, []string{"a h:20180 gone", "b h:20180"}, []string{"h:20180"}},
		{"a store that moved", []string{"new:20160 id=5"}, []string{"tikv old:20180 gone", "tikv new:20180"}, []string{"new:20180"}},
		{"a store that was replaced at its address", []string{"h:20160 id=9"}, []string{"tikv h:20180"}, []string{"h:20180"}},
		{"a store that is down", []string{"h:20160"}, []string{"tikv h:20180 gone"}, []string{"h:20180"}},

		{"no targets", []string{"a:1"}, nil, []string{""}},
		{"no stores", nil, []string{"tikv a:1"}, nil},
		{"nonsense", []string{":", "[", "::1", ""}, []string{"j :", "j [", " "}, []string{"", "", "", ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			given, targets := all(store, tc.stores), all(target, tc.targets)
			matches := storematch.Find(given, targets)
			slices.Reverse(targets)
			if again := storematch.Find(given, targets); fmt.Sprint(again) != fmt.Sprint(matches) {
				t.Errorf("in another order of targets: %v, else %v", again, matches)
			}
			var got []string
			for i, m := range matches {
				if m.Store != given[i] {
					t.Errorf("match %d is of %v, want %v", i, m.Store, given[i])
				}
				found, ok := m.Target()
				switch {
				case m.Ambiguous && ok:
					t.Errorf("%v is ambiguous and has a target", m)
				case m.Ambiguous:
					got = append(got, "?")
				default:
					got = append(got, found.Instance)
				}
				if (len(m.Candidates) == 0) != (m.Rule == "") {
					t.Errorf("%v has candidates without a rule, or a rule without candidates", m)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// The namespaces of two pods of one name are kept apart by job, which the table does not show.
func TestTheSamePodInTwoNamespaces(t *testing.T) {
	matches := storematch.Find(
		all(store, []string{pod0, "basic-tikv-0.basic-tikv-peer.other.svc:20160"}),
		all(target, []string{"other-basic-tikv basic-tikv-0 ns=other", "ns-basic-tikv basic-tikv-0 ns=ns"}))
	for i, want := range []string{"ns-basic-tikv", "other-basic-tikv"} {
		if found, ok := matches[i].Target(); !ok || found.Job != want {
			t.Errorf("%s has %v, want job %s", matches[i].Store.Address, found, want)
		}
	}
}

// What is wanted is "id address instance", store by store.
func TestNamed(t *testing.T) {
	for _, tc := range []struct {
		name    string
		known   []string
		targets []string
		want    []string
	}{
		{"PD names what it knows", []string{"a:20160 id=1", "b:20160 id=4"}, []string{"j a:20180", "j b:20180", "j c:20180"}, []string{"1 a:20160 a:20180", "4 b:20160 b:20180", " c:20180 c:20180"}},
		{"TiFlash beside TiKV", []string{"a:20160 id=1", "a:3930 id=2"}, []string{"j a:20180"}, []string{"1 a:20160 a:20180"}},
		{"TiFlash where PD does not know TiKV", []string{"a:3930 id=2"}, []string{"j a:20180"}, []string{" a:20180 a:20180"}},
		{"a pod under two jobs, one of the past", nil, []string{"j pod-0 gone", "k pod-0"}, []string{" pod-0 pod-0"}},
		{"TiFlash has no target", []string{"a:20160 id=1", "f:3930 id=2"}, []string{"j a:20180"}, []string{"1 a:20160 a:20180"}},
		{"an address that changed hands", []string{"a:20160 id=9", "a:20160 id=10", "a:20160 id=2"}, []string{"j a:20180"}, []string{"10 a:20160 a:20180"}},
		{"a store that moved", []string{"a:20160 id=5", "b:20160 id=5"}, []string{"j a:20180 gone", "j b:20180"}, []string{"5 a:20160 a:20180", "5 b:20160 b:20180"}},
		{"what PD does not decide keeps its own name", []string{"h:20160 id=1"}, []string{"j h:20180", "j h:20181"}, []string{" h:20180 h:20180", " h:20181 h:20181"}},
		{"nothing known", nil, []string{"j b:1", "j a:1"}, []string{" a:1 a:1", " b:1 b:1"}},
		{"two jobs of one instance", nil, []string{"j a:1", "k a:1"}, []string{" a:1 ?"}},
		{"two jobs of one instance, one of the past", nil, []string{"j a:1 gone", "k a:1"}, []string{" a:1 a:1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, m := range storematch.Named(all(store, tc.known), all(target, tc.targets)) {
				found, ok := m.Target()
				instance := found.Instance
				if !ok {
					instance = "?"
				}
				got = append(got, m.Store.ID+" "+m.Store.Address+" "+instance)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

// Two TiKVs on one host have been told apart; what comes and goes beside them must not take their gauges.
func TestFindAgain(t *testing.T) {
	both := all(store, []string{"h:20160", "h:20161"})
	before := storematch.Find(both, all(target, []string{"j h:20180", "j h:20181"}))
	for _, tc := range []struct {
		name    string
		stores  []string
		targets []string
		want    []string
	}{
		{"nothing changes", nil, []string{"j h:20180", "j h:20181"}, []string{"h:20180", "h:20181"}},
		{"a third target", nil, []string{"j h:20180", "j h:20181", "j h:20182"}, []string{"h:20180", "h:20181"}},
		{"a third store and target", []string{"h:20162"}, []string{"j h:20180", "j h:20181", "j h:20182"}, []string{"h:20180", "h:20181", "h:20182"}},
		{"a third store without a target", []string{"h:20162"}, []string{"j h:20180", "j h:20181"}, []string{"h:20180", "h:20181", ""}},
		{"a target is gone for good", nil, []string{"j h:20181"}, []string{"", "h:20181"}},
		{"both have moved to other ports", nil, []string{"j h:1180", "j h:1181"}, []string{"h:1180", "h:1181"}},
		{"both are under another job", nil, []string{"k h:20180", "k h:20181"}, []string{"h:20180", "h:20181"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, m := range storematch.Find(append(slices.Clone(both), all(store, tc.stores)...), all(target, tc.targets), before...) {
				found, _ := m.Target()
				if m.Ambiguous {
					found.Instance = "?"
				}
				got = append(got, found.Instance)
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("PD's word is better than what was before", func(t *testing.T) {
		now := storematch.Find(all(store, []string{"h:20160 status=h:20181", "h:20161 status=h:20180"}), all(target, []string{"j h:20180", "j h:20181"}), before...)
		if found, _ := now[0].Target(); found.Instance != "h:20181" {
			t.Errorf("got %v", now)
		}
	})
}

// Whatever the names, no target is given to two stores, and no store gets what there is not.
func FuzzFind(f *testing.F) {
	f.Add("tikv-1:20160,tikv-10:20160 instance=x", "tikv tikv-1:20180,tikv x,a x gone")
	f.Add("[::1]:1,::1,[::1 status=[::]:3", "a [::1]:2,b [::1],c ::1:3")
	f.Add("h.:1,H:2,h status=h:3", "j h.:3,j h:4 pod=h ns=x")
	f.Add(pod0+","+pod1, "j basic-tikv-0 ns=ns cluster=basic,j basic-tikv-0 gone,k 1.2.3.4:5 pod=basic-tikv-1")
	f.Fuzz(func(t *testing.T, storeList, targetList string) {
		given := all(store, strings.Split(storeList, ","))
		targets := all(target, strings.Split(targetList, ","))
		known := map[storematch.Identity]bool{}
		for _, target := range targets {
			known[target.Identity] = true
		}
		matches := storematch.Find(given, targets)
		if len(matches) != len(given) {
			t.Fatalf("%d matches of %d stores", len(matches), len(given))
		}
		for what, matches := range map[string][]storematch.Match{"find": matches, "named": storematch.Named(given, targets)} {
			owner := map[storematch.Identity]int{}
			for i, m := range matches {
				found, ok := m.Target()
				if !ok {
					continue
				}
				if other, taken := owner[found.Identity]; taken {
					t.Errorf("%s: %v is given to the stores %d and %d", what, found, other, i)
				}
				if !known[found.Identity] {
					t.Errorf("%s: store %d is given %v, which there is not", what, i, found)
				}
				owner[found.Identity] = i
			}
		}
		shuffled := slices.Clone(targets)
		rand.New(rand.NewPCG(1, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if again := storematch.Find(given, shuffled); fmt.Sprint(again) != fmt.Sprint(matches) {
			t.Errorf("in another order of targets: %v, else %v", again, matches)
		}
	})
}

// BenchmarkFind shows that the cost of a store does not grow with their number, in each kind of deployment.
func BenchmarkFind(b *testing.B) {
	for _, kind := range []struct {
		name   string
		store  func(int) string
		target func(int) string
	}{
		{"status", func(i int) string { return fmt.Sprintf("host-%d:20160 status=host-%[1]d:20180", i) }, func(i int) string { return fmt.Sprintf("tikv host-%d:20180", i) }},
		{"host", func(i int) string { return fmt.Sprintf("host-%d:20160", i) }, func(i int) string { return fmt.Sprintf("tikv host-%d:20180", i) }},
		{"pods", func(i int) string { return fmt.Sprintf("basic-tikv-%d.basic-tikv-peer.ns.svc:20160", i) }, func(i int) string { return fmt.Sprintf("tikv basic-tikv-%d ns=ns cluster=basic", i) }},
		{"onehost", func(i int) string { return fmt.Sprintf("host:%d", 20000+i) }, func(i int) string { return fmt.Sprintf("tikv host:%d", 30000+i) }},
		{"undecided", func(i int) string { return fmt.Sprintf("host:%d", 20000+i) }, func(i int) string { return fmt.Sprintf("tikv host:%d", 30000+3*i) }},
		{"onepod", func(i int) string { return fmt.Sprintf("pod-0.a%d.example.com:20160", i) }, func(i int) string { return fmt.Sprintf("tikv 10.%d.%d.1:20180 pod=pod-0", i/256, i%256) }},
	} {
		for _, n := range []int{50, 500, 5000} {
			var given []storematch.Store
			var targets []storematch.Target
			for i := range n {
				given = append(given, store(kind.store(i)))
				targets = append(targets, target(kind.target(i)))
			}
			b.Run(fmt.Sprintf("%s/stores=%d", kind.name, n), func(b *testing.B) {
				for b.Loop() {
					storematch.Find(given, targets)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/store")
			})
		}
	}
}
