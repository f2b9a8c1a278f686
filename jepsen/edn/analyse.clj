;; Jepsen's own analysis of histories: jepsen.tests.kafka.
(require '[clojure.edn :as edn] '[clojure.java.io :as io]
         '[jepsen.history :as history] '[jepsen.tests.kafka :as kafka])

(defn errors [file]
  (with-open [lines (io/reader file)]
    (:errors (kafka/analysis (history/history (mapv (comp history/op edn/read-string) (line-seq lines))) {}))))

(let [found (mapv (fn [file] [file (errors file)]) *command-line-args*)]
  (doseq [[file errors] found]
    (println (if (empty? errors) "OK  " "FAIL") file (sort (keys errors)))
    (doseq [[kind cases] errors]
      (println "    " kind (pr-str (if (map? cases) cases (take 3 cases))))))
  (shutdown-agents)
  (System/exit (if (every? (comp empty? second) found) 0 1)))
