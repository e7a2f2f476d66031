// SPDX-License-Identifier: Apache-2.0

package config

// validate returns the mistakes that involve more than one entry: duplicates and different help
// texts of one metric. It skips entries without a name: they failed to decode, which is reported
// elsewhere.
func validate(cfg *Config) mistakes {
	var clusters []Cluster
	for _, c := range cfg.Clusters {
		if c.Name != "" {
			clusters = append(clusters, c)
		}
	}

	found := duplicateClusters(clusters)
	helps := map[string]Metric{}
	for _, c := range clusters {
		unique, duplicates := uniqueMetrics(c.Metrics)
		found = append(found, duplicates...)
		found = append(found, differentHelp(helps, unique)...)
		found = append(found, duplicateStores(c.Stores)...)
	}
	return found
}

func duplicateClusters(clusters []Cluster) mistakes {
	var found mistakes
	lines := firstLines[string]{}
	for _, c := range clusters {
		if first, duplicate := lines.add(c.Name, c.line); duplicate {
			found.add(c.line, "duplicate cluster %q, first defined on line %d: "+
				"give each cluster a unique name", c.Name, first)
		}
	}
	return found
}

// uniqueMetrics returns the metrics of one cluster without duplicates, and one mistake per
// duplicate.
func uniqueMetrics(metrics []Metric) (unique []Metric, duplicates mistakes) {
	lines := firstLines[string]{}
	for _, m := range metrics {
		if m.Name == "" {
			continue
		}
		if first, duplicate := lines.add(m.Name, m.line); duplicate {
			duplicates.add(m.line, "duplicate metric %q, first defined on line %d: "+
				"give each metric of a cluster a unique name", m.Name, first)
			continue
		}
		unique = append(unique, m)
	}
	return unique, duplicates
}

// differentHelp compares the help texts of one cluster's metrics with those of the clusters before
// it: a metric has one help text, which is followed by the samples of all clusters. helps has the
// first metric of each name; differentHelp adds to it.
func differentHelp(helps map[string]Metric, metrics []Metric) mistakes {
	var found mistakes
	for _, m := range metrics {
		first, ok := helps[m.Name]
		switch {
		case !ok:
			helps[m.Name] = m
		case first.Help != m.Help:
			found.add(m.line, "metric %q has a different help on line %d: "+
				"use the same help in all clusters, because a metric has only one", m.Name, first.line)
		}
	}
	return found
}

// storeField is a field that identifies a store, so that no two stores of a cluster may share its
// value.
type storeField struct{ name, value string }

func duplicateStores(stores []Store) mistakes {
	var found mistakes
	lines := firstLines[storeField]{}
	for _, s := range stores {
		for _, field := range []storeField{
			{name: "id", value: string(s.ID)},
			{name: "address", value: string(s.Address)},
			{name: "instance", value: s.Instance},
		} {
			if field.value == "" {
				continue
			}
			if first, duplicate := lines.add(field, s.line); duplicate {
				found.add(s.line, "duplicate store: %s %q is already used on line %d: "+
					"give each store a unique %s", field.name, field.value, first, field.name)
			}
		}
	}
	return found
}

// firstLines has the line on which each key was first used.
type firstLines[K comparable] map[K]int

// add records that key is used on line. If key was used before, it returns the line of the first
// use.
func (f firstLines[K]) add(key K, line int) (first int, duplicate bool) {
	if first, ok := f[key]; ok {
		return first, true
	}
	f[key] = line
	return line, false
}
