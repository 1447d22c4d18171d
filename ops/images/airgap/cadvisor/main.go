// Serves cAdvisor's library as the official program does: Docker's containers at /metrics, and /healthz.
// Its own flags have the names, meanings and defaults of the official program, which has more.
// Official: https://github.com/google/cadvisor/blob/master/cmd/cadvisor.go
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/google/cadvisor/cache/memory"
	"github.com/google/cadvisor/container"
	_ "github.com/google/cadvisor/container/docker/install"
	info "github.com/google/cadvisor/info/v2"
	"github.com/google/cadvisor/manager"
	"github.com/google/cadvisor/metrics"
	"github.com/google/cadvisor/utils/sysfs"
	"github.com/google/cadvisor/version"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

var (
	listenIP    = flag.String("listen_ip", "", "IP to listen on, all unless set")
	port        = flag.Int("port", 8080, "port to listen on")
	showVersion = flag.Bool("version", false, "print the version and exit")
	keepFor     = flag.Duration("storage_duration", 2*time.Minute, "how long to keep data in memory")
	allLabels   = flag.Bool("store_container_labels", true, "turn every container label into a metric label")
	someLabels  = flag.String("whitelisted_container_labels", "", "labels to turn into metric labels if not every one")
	onlyCgroups = flag.String("raw_cgroup_prefix_whitelist", "", "cgroups to report even with docker_only")
	disabled    = container.MetricSet{
		container.CPUSetMetrics:                  {},
		container.CPUTopologyMetrics:             {},
		container.HugetlbUsageMetrics:            {},
		container.MemoryNumaMetrics:              {},
		container.NetworkAdvancedTcpUsageMetrics: {},
		container.NetworkTcpUsageMetrics:         {},
		container.NetworkUdpUsageMetrics:         {},
		container.ProcessMetrics:                 {},
		container.ProcessSchedulerMetrics:        {},
		container.ReferencedMemoryMetrics:        {},
		container.ResctrlMetrics:                 {},
	}
	enabled = container.MetricSet{}
)

func main() {
	flag.Var(&disabled, "disable_metrics", "metrics to leave out")
	flag.Var(&enabled, "enable_metrics", "metrics to report; overrides disable_metrics")
	klog.InitFlags(nil)
	flag.Parse()
	if *showVersion {
		fmt.Printf("cAdvisor version %s (fallback image)\n", version.Version)
		return
	}

	included := enabled
	if len(included) == 0 {
		included = container.AllMetrics.Difference(disabled)
	}
	containers, err := manager.New(memory.New(*keepFor, nil), sysfs.NewRealSysFs(), manager.HousekeepingConfigFlags,
		included, http.DefaultClient, strings.Split(*onlyCgroups, ","), nil, "", 0)
	if err != nil {
		klog.Fatalf("no manager: %v", err)
	}
	if err := containers.Start(); err != nil {
		klog.Fatalf("the manager does not start: %v", err)
	}
	defer containers.Stop()

	labels := metrics.DefaultContainerLabels
	if !*allLabels {
		labels = metrics.BaseContainerLabels(strings.Split(*someLabels, ","))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		metrics.NewPrometheusMachineCollector(containers, included),
		metrics.NewPrometheusCollector(containers, labels, included, clock.RealClock{},
			info.RequestOptions{IdType: info.TypeName, Count: 1, Recursive: true}),
	)
	http.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}))
	http.HandleFunc("/healthz", func(answer http.ResponseWriter, _ *http.Request) { fmt.Fprintln(answer, "ok") })

	stopped, _ := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	go func() { klog.Fatal(http.ListenAndServe(fmt.Sprintf("%s:%d", *listenIP, *port), nil)) }()
	<-stopped.Done()
}
