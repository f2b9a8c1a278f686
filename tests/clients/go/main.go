// Command client runs the scenarios of the Go client v2 and reports each as a line the script reads:
// "@@ PLAN name ...", "@@ PASS name seconds", "@@ FAIL name seconds reason", "@@ NOTE name text", "@@ READY".
// Arguments: --namesrv ADDRS --run ID [--only a,b] [--limit SECONDS] [--jobs N].
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2/rlog"
)

type scenario struct {
	name string
	run  func(lab *lab) error
}

// The failover scenario runs only when it is asked for: somebody has to kill the leader.
const failoverName = "failover"

var scenarios = []scenario{
	{"retry-once", retryOnce},
	{"offset-restart", offsetRestart},
	{"push-orderly", pushOrderly},
	{"send-sync", sendSync},
	{"send-async", sendAsync},
	{"send-oneway", sendOneway},
	{"send-again", again},
	{"send-batch", sendBatch},
	{"tag-filter", tagFilter},
	{failoverName, failover},
}

var out sync.Mutex

func report(format string, arguments ...interface{}) {
	out.Lock()
	defer out.Unlock()
	fmt.Printf("@@ "+format+"\n", arguments...)
}

func main() {
	namesrv := flag.String("namesrv", "127.0.0.1:9876", "name servers, separated by semicolons")
	run := flag.String("run", "0", "ends the names of topics and groups")
	only := flag.String("only", "", "scenarios, separated by commas")
	limit := flag.Int("limit", 300, "seconds a scenario may take")
	jobs := flag.Int("jobs", 4, "scenarios at a time")
	flag.Parse()
	rlog.SetLogLevel("warn")
	wanted := choose(*only)
	names := make([]string, 0, len(wanted))
	for _, s := range wanted {
		names = append(names, s.name)
	}
	report("PLAN %s", strings.Join(names, " "))
	slots := make(chan struct{}, *jobs)
	var all sync.WaitGroup
	for _, s := range wanted {
		all.Add(1)
		slots <- struct{}{}
		go func(s scenario) {
			defer all.Done()
			one(s, newLab(*namesrv, *run), time.Duration(*limit)*time.Second)
			<-slots
		}(s)
	}
	all.Wait()
	os.Exit(0)
}

func choose(only string) []scenario {
	var wanted []scenario
	for _, s := range scenarios {
		named := strings.Contains(","+only+",", ","+s.name+",")
		if named || (only == "" && s.name != failoverName) {
			wanted = append(wanted, s)
		}
	}
	return wanted
}

func one(s scenario, lab *lab, limit time.Duration) {
	start := time.Now()
	done := make(chan error, 1)
	go func() { done <- s.run(lab) }()
	var err error
	select {
	case err = <-done:
	case <-time.After(limit):
		err = fmt.Errorf("time limit of %s", limit)
	}
	took := time.Since(start).Seconds()
	if err == nil {
		report("PASS %s %.1f", s.name, took)
	} else {
		report("FAIL %s %.1f %s", s.name, took, strings.Join(strings.Fields(err.Error()), " "))
	}
	lab.close()
}
